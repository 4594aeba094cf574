"""What a delay-model checkpoint says about itself (``config.json``, ``generation_config.json``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from streamer.checkpoint import CheckpointError, read_config, require

MODEL_TYPE = "moss_tts_delay"


@dataclass(frozen=True, slots=True)
class LanguageConfig:
    """Shape of the Qwen3 backbone."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> LanguageConfig:
        """Read a Qwen3 config; what the file leaves out has the default that transformers gives it."""
        # Imported here because transformers takes a second to load and only checkpoints need it.
        from transformers import Qwen3Config

        full = {**Qwen3Config().to_dict(), **raw}
        where = "config.json: language_config"
        if full.get("attention_bias"):
            raise CheckpointError(f"{where}: 'attention_bias' is set; Qwen3 without biases is supported")
        if full.get("use_sliding_window"):
            raise CheckpointError(f"{where}: 'use_sliding_window' is set; only full attention is supported")
        config = cls(
            vocab_size=require(full, "vocab_size", int, where),
            hidden_size=require(full, "hidden_size", int, where),
            intermediate_size=require(full, "intermediate_size", int, where),
            n_layers=require(full, "num_hidden_layers", int, where),
            n_heads=require(full, "num_attention_heads", int, where),
            n_kv_heads=require(full, "num_key_value_heads", int, where),
            head_dim=require(full, "head_dim", int, where),
            rms_norm_eps=require(full, "rms_norm_eps", float, where),
            rope_theta=_rope_theta(raw, full, where),
        )
        for field in fields(cls):
            if not getattr(config, field.name) > 0:
                raise CheckpointError(f"{where}: {field.name} is {getattr(config, field.name)}, expected more than 0")
        if config.n_heads % config.n_kv_heads:
            raise CheckpointError(f"{where}: 'num_key_value_heads' does not divide 'num_attention_heads'")
        return config


@dataclass(frozen=True, slots=True)
class DelayConfig:
    """A ``moss_tts_delay`` checkpoint: backbone, number of codebooks, and the ids with a meaning.

    ``alignment_heads``: (layer, head) of the attention heads that look at the text being said; most checkpoints
    declare none.
    """

    language: LanguageConfig
    n_vq: int
    audio_vocab_size: int
    audio_pad_code: int
    sampling_rate: int
    pad_token_id: int
    im_start_token_id: int
    im_end_token_id: int
    audio_start_token_id: int
    audio_end_token_id: int
    audio_user_slot_token_id: int
    audio_assistant_gen_slot_token_id: int
    audio_assistant_delay_slot_token_id: int
    alignment_heads: tuple[tuple[int, int], ...] = ()

    @classmethod
    def from_folder(cls, folder: Path) -> DelayConfig:
        """Read ``config.json``; :class:`CheckpointError` names the field that is missing or of a wrong type."""
        raw = read_config(folder, MODEL_TYPE)
        language = LanguageConfig.from_dict(require(raw, "language_config", dict))
        ids = {f.name: require(raw, f.name, int) for f in fields(cls) if f.type == "int"}
        config = cls(language=language, alignment_heads=_alignment_heads(raw, language), **ids)
        for name in (f.name for f in fields(cls) if f.name.endswith("_token_id")):
            if not 0 <= getattr(config, name) < language.vocab_size:
                raise CheckpointError(f"config.json: {name!r} is outside the vocabulary")
        if config.n_vq < 1 or config.audio_vocab_size < 1:
            raise CheckpointError("config.json: 'n_vq' and 'audio_vocab_size' must be at least 1")
        if config.audio_pad_code != config.audio_vocab_size:
            raise CheckpointError("config.json: 'audio_pad_code' must equal 'audio_vocab_size'")
        return config


def _alignment_heads(raw: Mapping[str, Any], language: LanguageConfig) -> tuple[tuple[int, int], ...]:
    pairs = raw.get("alignment_heads", [])
    wanted = f"[[layer, head], ...] with layers below {language.n_layers} and heads below {language.n_heads}"
    try:
        heads = tuple((layer, head) for layer, head in pairs)
        # A bool counts as an int in Python, not in JSON.
        fits = all(type(layer) is int and type(head) is int for layer, head in heads)
        fits = fits and all(0 <= layer < language.n_layers and 0 <= head < language.n_heads for layer, head in heads)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise CheckpointError(f"config.json: 'alignment_heads' is {pairs!r}, expected {wanted}")
    return heads


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are drawn. Temperature 0 is greedy; ``top_k`` 0 and ``top_p`` 1 switch those filters off.

    The defaults are MOSS-TTSD's. ``per_codebook_history`` gives every codebook its own repetition history
    instead of the publishers' one for codebook 0 and one shared by all others.
    """

    audio_temperature: float = 1.1
    audio_top_p: float = 0.9
    audio_top_k: int = 50
    audio_repetition_penalty: float = 1.1
    text_temperature: float = 1.5
    text_top_p: float = 1.0
    text_top_k: int = 50
    per_codebook_history: bool = False

    def __post_init__(self) -> None:
        for head in ("audio", "text"):
            _check_range(f"{head}_temperature", getattr(self, f"{head}_temperature"), 0.0, 10.0)
            _check_range(f"{head}_top_p", getattr(self, f"{head}_top_p"), 0.0, 1.0)
            _check_range(f"{head}_top_k", getattr(self, f"{head}_top_k"), 0, 1_000_000)
        _check_range("audio_repetition_penalty", self.audio_repetition_penalty, 0.1, 10.0)

    @classmethod
    def from_folder(cls, folder: Path) -> SamplingParams:
        """Defaults of a checkpoint: its ``generation_config.json`` where it has one, else MOSS-TTSD's."""
        path = folder / "generation_config.json"
        if not path.exists():
            return cls()
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: not valid JSON ({error})") from error
        if not isinstance(raw, Mapping):
            raise CheckpointError(f"{path}: expected a JSON object")
        values: dict[str, Any] = {}
        for field in fields(cls):
            # The audio heads' settings go by their plain Hugging Face names in published files.
            plain = field.name.removeprefix("audio_")
            found = next((raw[key] for key in (field.name, plain) if raw.get(key) is not None), None)
            if found is not None:
                values[field.name] = found
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: {error}") from error


def _rope_theta(raw: Mapping[str, Any], full: Mapping[str, Any], where: str) -> float:
    """RoPE's base, from either spelling; the file's own words come before transformers' defaults."""
    for source in (raw, full):
        parameters = source.get("rope_parameters") or source.get("rope_scaling") or {}
        if not isinstance(parameters, Mapping):
            raise CheckpointError(f"{where}: 'rope_parameters' is {parameters!r}, expected an object")
        kind = parameters.get("rope_type", "default")
        if kind != "default":
            raise CheckpointError(f"{where}: rope_type {kind!r} is not supported, only 'default'")
        for holder in (parameters, source):
            if holder.get("rope_theta") is not None:
                return float(require(holder, "rope_theta", float, where))
    raise CheckpointError(f"{where}: 'rope_theta' is missing")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} is {value!r}, expected a number")
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}, expected {low} to {high}")
