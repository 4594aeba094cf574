"""Loading: published layouts in all their spellings, and what is said about a folder that is none."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import GOLDEN, load_golden
from transformers import Qwen3Config, Qwen3Model

from streamer import DelayModel, SamplingParams
from streamer.checkpoint import CheckpointError
from streamer.models import DelayConfig, LanguageConfig, load_tokenizer
from streamer.models.qwen3 import KVPool, Qwen3Decoder
from streamer.speech import ASSETS

Edit = Callable[[Path], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the small checkpoint that a test may damage."""
    copy = tmp_path / "model"
    shutil.copytree(GOLDEN / "delay-nvq4" / "model", copy)
    return copy


def edit_config(change: Callable[[dict[str, Any]], None]) -> Edit:
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        config = json.loads(path.read_text())
        change(config)
        path.write_text(json.dumps(config))

    return edit


def edit_tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> Edit:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return edit


def write_brace(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def write_list(folder: Path) -> None:
    (folder / "generation_config.json").write_text("[]")


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:50_000])


EMB = "emb_ext.3.weight"
BROKEN: list[tuple[str, Edit, str]] = [
    ("no config", lambda f: (f / "config.json").unlink(), r"config\.json: no such file"),
    (
        "config no JSON",
        write_brace,
        r"config\.json: not valid JSON",
    ),
    ("no weights", lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors: no such file"),
    ("truncated", truncate, r"model\.safetensors: not a whole safetensors file"),
    ("other architecture", edit_config(lambda c: c.update(model_type="llama")), "model_type is 'llama'"),
    ("missing field", edit_config(lambda c: c.pop("n_vq")), "'n_vq' is missing"),
    *(
        (
            f"alignment heads {value!r}",
            edit_config(partial(dict.update, alignment_heads=value)),
            "'alignment_heads' is",
        )
        for value in (3, [3], [[0]], [["0", "1"]], [[True, 0]], [[99, 0]], [[0, 99]], [[-1, 0]])
    ),
    ("field of wrong type", edit_config(lambda c: c.update(n_vq="4")), "'n_vq' is '4', expected int"),
    (
        "id outside",
        edit_config(lambda c: c.update(audio_end_token_id=304)),
        "'audio_end_token_id' is outside",
    ),
    ("missing tensor", edit_tensors(lambda t: t.__delitem__(EMB)), f"tensor '{EMB}' is missing"),
    ("extra tensor", edit_tensors(lambda t: t.update(bias=torch.zeros(1))), "tensor 'bias' is not part"),
    (
        "misshapen",
        edit_tensors(lambda t: t.update({EMB: torch.zeros(3, 64)})),
        rf"'{EMB}' has shape \[3, 64\]",
    ),
    (
        "no heads",
        edit_config(lambda c: c["language_config"].update(num_key_value_heads=0)),
        "n_kv_heads is 0",
    ),
    (
        "rope no object",
        edit_config(lambda c: c["language_config"].update(rope_parameters="abc")),
        "'rope_parameters' is 'abc'",
    ),
    (
        "sampling no object",
        write_list,
        "expected a JSON object",
    ),
    (
        "rope scaling",
        edit_config(lambda c: c["language_config"]["rope_parameters"].update(rope_type="yarn")),
        "rope_type 'yarn' is not supported",
    ),
]


@pytest.mark.parametrize(("edit", "message"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_what_is_wrong_with_a_checkpoint_is_named(folder: Path, edit: Edit, message: str) -> None:
    edit(folder)
    with pytest.raises(CheckpointError, match=message):
        DelayModel.from_pretrained(folder)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        DelayModel.from_pretrained(tmp_path / "nothing")


def logits_of(path: Path) -> torch.Tensor:
    return DelayModel.from_pretrained(path).logits(load_golden("delay-nvq4").arrays["forced/input"][:20])[0]


def test_shards_with_an_index_load_like_one_file(folder: Path) -> None:
    expected = logits_of(folder)
    tensors = load_file(folder / "model.safetensors")
    weight_map = {name: f"part-{i % 3}.safetensors" for i, name in enumerate(sorted(tensors))}
    for part in set(weight_map.values()):
        save_file({n: t for n, t in tensors.items() if weight_map[n] == part}, folder / part)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert torch.equal(logits_of(folder), expected)

    (folder / "part-1.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"part-1\.safetensors: no such file"):
        DelayModel.from_pretrained(folder)


def test_both_spellings_of_the_rope_base_load_alike(folder: Path) -> None:
    def old_style(config: dict[str, Any]) -> None:
        language = config["language_config"]
        language["rope_theta"] = language.pop("rope_parameters")["rope_theta"]

    expected = logits_of(folder)
    edit_config(old_style)(folder)
    assert torch.equal(logits_of(folder), expected)
    edit_config(lambda c: c["language_config"].update(rope_theta=10_000.0))(folder)
    assert not torch.allclose(logits_of(folder), expected)


def test_generation_config_gives_the_default_sampling(folder: Path) -> None:
    assert DelayModel.from_pretrained(folder).default_sampling == SamplingParams()
    (folder / "generation_config.json").write_text('{"temperature": 0.7, "top_k": 20, "text_temperature": 1.0}')
    expected = SamplingParams(audio_temperature=0.7, audio_top_k=20, text_temperature=1.0)
    assert DelayModel.from_pretrained(folder).default_sampling == expected
    (folder / "generation_config.json").write_text('{"top_p": 7}')
    with pytest.raises(CheckpointError, match="audio_top_p is 7"):
        DelayModel.from_pretrained(folder)


def test_alignment_heads_are_read_and_none_is_the_default(folder: Path) -> None:
    assert DelayConfig.from_folder(folder).alignment_heads == ()
    edit_config(lambda c: c.update(alignment_heads=[[1, 0], [0, 1]]))(folder)
    assert DelayConfig.from_folder(folder).alignment_heads == ((1, 0), (0, 1))


def test_the_embedded_checkpoints_have_the_published_layout() -> None:
    for part, published in (("model", "delay-nvq4/model"), ("codec", "codec-nq8/codec")):
        ours, theirs = ASSETS / part, GOLDEN / published
        tensors, wanted = (layout(load_file(folder / "model.safetensors")) for folder in (ours, theirs))
        # Where the quantizer is as wide as the encoder, the published codec has no projections around it.
        narrower = {entry for entry in wanted if entry[0].startswith(("quantizer.input_proj", "quantizer.output_proj"))}
        assert tensors == wanted - narrower
        config, golden = (json.loads((folder / "config.json").read_text()) for folder in (ours, theirs))
        # The library that wrote the file puts its version in, and a default for whatever was left out.
        assert golden.keys() - {"transformers_version"} <= config.keys() <= golden.keys() | {"alignment_heads"}
        assert config.get("language_config", {}).keys() <= golden.get("language_config", {}).keys() | {"rope_theta"}


def layout(tensors: dict[str, torch.Tensor]) -> set[tuple[str, int]]:
    """Names, numbers in them left open, and dimensions."""
    return {(re.sub(r"\d+", "N", name), tensor.ndim) for name, tensor in tensors.items()}


def test_a_hub_id_loads_from_the_hubs_cache(folder: Path, tmp_path: Path) -> None:
    repo = tmp_path / "cache" / "models--someone--small"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0123456789abcdef0123456789abcdef01234567")
    shutil.copytree(folder, repo / "snapshots" / "0123456789abcdef0123456789abcdef01234567")
    # A process of its own: the hub client reads its environment when it is imported.
    script = (
        "import streamer\n"
        "from streamer.checkpoint import CheckpointError\n"
        "print(streamer.DelayModel.from_pretrained('someone/small').config.n_vq)\n"
        "try: streamer.DelayModel.from_pretrained('someone/unknown')\n"
        "except CheckpointError as error: print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "4", done.stderr
    assert lines[1].startswith("someone/unknown: neither a local folder nor a model the hub gave us")


def test_a_damaged_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="tokenizer can't be read"):
        load_tokenizer(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: no such file"):
        load_tokenizer(folder)


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
def test_the_decoder_agrees_with_transformers(n_kv_heads: int) -> None:
    torch.manual_seed(n_kv_heads)
    oracle_config = Qwen3Config(
        vocab_size=50,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=n_kv_heads,
        head_dim=20,
    )
    oracle = Qwen3Model._from_config(oracle_config, attn_implementation="eager").eval()
    for parameter in oracle.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    config = LanguageConfig.from_dict(oracle_config.to_dict())
    tensors = {k: v.detach() for k, v in oracle.state_dict().items() if not k.startswith("embed_tokens")}
    decoder = Qwen3Decoder(config, dict(tensors))
    x = torch.randn(70, 48)
    pool = KVPool(config, n_blocks=6, block_rows=16, dtype=torch.float32, device=torch.device("cpu"))
    table = torch.tensor([5, 0, 3, 1, 4])
    with torch.inference_mode():
        expected = oracle(inputs_embeds=x[None]).last_hidden_state[0]
        head = [decoder.prefill(x[a:b], pool, table, a) for a, b in ((0, 32), (32, 57))]
        tail = [decoder.decode(x[i : i + 1], pool, table[None], torch.tensor([i])) for i in range(57, 70)]
    torch.testing.assert_close(torch.cat(head + tail), expected, atol=2e-4, rtol=1e-4)
