"""Checkpoints as people find them: both spellings of weight norm, and everything that can be wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from streamer.checkpoint import CheckpointError
from streamer.codec import AudioCodec

Tensors = dict[str, torch.Tensor]
ATTENTION = "decoder.0.transformer.layers.1.self_attn.in_projs.0.weight"


@pytest.fixture
def folder(golden_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(golden_folder, tmp_path / "codec"))


def rewrite_tensors(folder: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def rewrite_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def legacy_spelling(tensors: Tensors) -> None:
    for name in list(tensors):
        legacy = name.replace("parametrizations.weight.original0", "weight_g")
        legacy = legacy.replace("parametrizations.weight.original1", "weight_v")
        tensors[legacy] = tensors.pop(name)


def assert_same_codec(folder: Path, codec: AudioCodec, codes: torch.Tensor) -> None:
    loaded = AudioCodec.from_pretrained(str(folder))
    audio = codec.decode(codes)
    assert torch.equal(loaded.decode(codes), audio)
    assert torch.equal(loaded.encode(audio), codec.encode(audio))


def test_both_spellings_of_weight_norm_are_one_codec(
    folder: Path, codec: AudioCodec, golden_codes: torch.Tensor
) -> None:
    rewrite_tensors(folder, legacy_spelling)
    assert "quantizer.input_proj.weight_g" in load_file(folder / "model.safetensors")
    assert_same_codec(folder, codec, golden_codes[:20])


def test_shards_and_the_other_model_type_load_too(folder: Path, codec: AudioCodec, golden_codes: torch.Tensor) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    home = {name: f"model-{1 + name.startswith('encoder')}-of-2.safetensors" for name in tensors}
    for file in set(home.values()):
        save_file({name: tensors[name] for name in tensors if home[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": home}))
    rewrite_config(folder, lambda config: config.update(model_type="speech_tokenizer"))
    assert_same_codec(folder, codec, golden_codes[:20])


def test_a_codec_without_layer_scale_loads(folder: Path, codec: AudioCodec, golden_codes: torch.Tensor) -> None:
    def fold(tensors: Tensors) -> None:
        for name in [name for name in tensors if ".layer_scale_" in name]:
            scale = tensors.pop(name)
            layer, branch = name.removesuffix(".scale").split(".layer_scale_")
            target = "self_attn.out_projs.0" if branch == "1" else "linear2"
            tensors[f"{layer}.{target}.weight"] *= scale[:, None]

    def forget(config: dict[str, Any]) -> None:
        for stage in config["encoder_kwargs"] + config["decoder_kwargs"]:
            stage["layer_scale"] = None

    rewrite_tensors(folder, fold)
    rewrite_config(folder, forget)
    audio = AudioCodec.from_pretrained(folder).decode(golden_codes)
    torch.testing.assert_close(audio, codec.decode(golden_codes), atol=1e-5, rtol=0)


def misshape(tensors: Tensors) -> None:
    tensors[ATTENTION] = tensors[ATTENTION][:-1].clone()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(ATTENTION), f"'{ATTENTION}' is missing"),
        (misshape, rf"'{ATTENTION}' has shape \[191, 64\], expected \[192, 64\]"),
        (
            lambda tensors: tensors.update({"decoder.9.weight": torch.zeros(1)}),
            "'decoder.9.weight' is not part",
        ),
        (lambda tensors: tensors.pop("quantizer.quantizers.7.codebook.weight"), "quantizers.7.codebook"),
    ],
)
def test_a_wrong_tensor_is_named(folder: Path, change: Callable[[Tensors], object], message: str) -> None:
    rewrite_tensors(folder, change)
    with pytest.raises(CheckpointError, match=message):
        AudioCodec.from_pretrained(folder)


def set_stage(side: str, index: int, **values: object) -> Callable[[dict[str, Any]], object]:
    return lambda config: config[f"{side}_kwargs"][index].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda config: config.update(model_type="encodec"),
            "model_type is 'encodec', expected 'moss-audio-tok",
        ),
        (lambda config: config.pop("sampling_rate"), "'sampling_rate' is missing"),
        (lambda config: config.update(downsample_rate=0), "'downsample_rate' is 0"),
        (lambda config: config.update(number_channels=2), "'number_channels' is 2"),
        (lambda config: config.update(causal_transformer_context_duration=0.001), "less than one step"),
        (lambda config: config["quantizer_kwargs"].update(quantizer_type="rvq"), "'quantizer_type' is 'rvq'"),
        (lambda config: config["decoder_kwargs"].pop(), "decoder_kwargs end with 240 channels and 8 steps"),
        (lambda config: config["encoder_kwargs"].insert(0, 3), r"encoder_kwargs\[0\]: expected an object"),
        (set_stage("decoder", 2, gating="silu"), r"decoder_kwargs\[2\]: 'gating' is 'silu'"),
        (set_stage("decoder", 2, module_type="Conv"), r"decoder_kwargs\[2\]: 'module_type' is 'Conv'"),
        (set_stage("encoder", 1, norm="rms_norm"), r"encoder_kwargs\[1\]: 'norm' is 'rms_norm'"),
        (
            set_stage("decoder", 0, input_dimension=50),
            r"decoder_kwargs\[0\]: 'input_dimension' is 50, expected 48",
        ),
        (set_stage("decoder", 0, num_heads=5), r"decoder_kwargs\[0\]: 'd_model' 64 is not 5 heads"),
        (set_stage("encoder", 0, patch_size=7), r"encoder_kwargs\[0\]: 'patch_size' 7 does not divide 1920"),
    ],
)
def test_a_wrong_config_is_named(folder: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    rewrite_config(folder, change)
    with pytest.raises(CheckpointError, match=message):
        AudioCodec.from_pretrained(folder)


def test_a_truncated_file_is_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a whole"):
        AudioCodec.from_pretrained(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}: no such file"):
        AudioCodec.from_pretrained(folder)
