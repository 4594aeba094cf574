"""Codec checkpoints for training: the published format read into a network, made afresh, and written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from streamer.checkpoint import load_tensors
from streamer.codec import AudioCodec
from streamer.codec.config import read_codec_config
from training.codec_network import CodecNetwork, LayerScale

CODEC = Path(__file__).parent.parent / "streamer" / "assets" / "codec"
_NORM_BIAS_STD = 0.1


def load_codec(folder: Path) -> CodecNetwork:
    """The network of a published checkpoint, in float32; CheckpointError names what is wrong with it."""
    network = CodecNetwork(read_codec_config(folder))
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    network.load_state_dict(load_tensors(folder, shapes, dtype=torch.float32))
    return network


def fresh_codec(folder: Path, seed: int) -> CodecNetwork:
    """A network with random weights, shaped by ``folder/config.json``."""
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = CodecNetwork(read_codec_config(folder))
        for module in network.modules():
            if isinstance(module, nn.LayerNorm):
                # The gradient of a norm at exact silence is without bound; a bias keeps the layers behind it alive.
                nn.init.normal_(module.bias, std=_NORM_BIAS_STD)
    for side in ("encoder", "decoder"):
        for stage, table in zip(getattr(network, side), settings[f"{side}_kwargs"], strict=True):
            for module in stage.modules():
                if isinstance(module, LayerScale):
                    nn.init.constant_(module.scale, table["layer_scale"])
    return network


def export_codec(network: Mapping[str, torch.Tensor], config_path: Path, out: Path) -> None:
    """Write the tensors in half precision with the settings of ``config_path``, and check that the server loads them.

    Raises :class:`~streamer.checkpoint.CheckpointError` where it could not.
    """
    settings = json.loads(config_path.read_text(encoding="utf-8")) | {"dtype": "float16"}
    half = {name: tensor.detach().to("cpu", torch.float16).contiguous() for name, tensor in network.items()}
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    unfinished = out / "model.safetensors.part"
    save_file(half, unfinished, metadata={"format": "pt"})
    unfinished.rename(out / "model.safetensors")
    AudioCodec.from_pretrained(out)
