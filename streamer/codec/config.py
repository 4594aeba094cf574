"""What a codec checkpoint's ``config.json`` says, checked and typed.

The architecture is that of ``OpenMOSS-Team/MOSS-Audio-Tokenizer``: causal transformers joined by patching,
around a residual quantizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamer.checkpoint import CheckpointError, read_config, require

MODEL_TYPES = ("moss-audio-tokenizer", "speech_tokenizer")
_QUANTIZER_TYPES = ("rlfq", "random_prefix_rlfq")
_FIXED = {"causal": True, "gating": "none", "norm": "layer_norm", "positional_embedding": "rope"}


@dataclass(frozen=True, slots=True)
class PatchConfig:
    """Channels to time steps and back: d channels are d/size channels in ``size`` steps."""

    size: int


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """One causal transformer stage; ``name`` is the prefix of its tensors."""

    name: str
    input_dim: int
    output_dim: int
    model_dim: int
    feedforward_dim: int
    n_heads: int
    n_layers: int
    max_period: float
    has_layer_scale: bool
    steps_per_frame: int
    context_steps: int

    @property
    def head_dim(self) -> int:
        return self.model_dim // self.n_heads


StageConfig = PatchConfig | TransformerConfig


@dataclass(frozen=True, slots=True)
class QuantizerConfig:
    """Residual LFQ; ``rvq_dim`` is the width in which the codebooks' vectors are summed."""

    input_dim: int
    rvq_dim: int
    output_dim: int
    n_codebooks: int
    codebook_size: int
    codebook_dim: int


@dataclass(frozen=True, slots=True)
class CodecConfig:
    sampling_rate: int
    frame_samples: int
    encoder: tuple[StageConfig, ...]
    decoder: tuple[StageConfig, ...]
    quantizer: QuantizerConfig

    @property
    def n_codebooks(self) -> int:
        return self.quantizer.n_codebooks

    @property
    def codebook_size(self) -> int:
        return self.quantizer.codebook_size

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sampling_rate / self.frame_samples


def read_codec_config(folder: Path) -> CodecConfig:
    """The codec that ``folder/config.json`` describes; a :class:`CheckpointError` names the wrong field."""
    config = _read_any(folder)
    where = str(folder / "config.json")
    sampling_rate = _positive(config, "sampling_rate", where)
    frame_samples = _positive(config, "downsample_rate", where)
    context_s = require(config, "causal_transformer_context_duration", float, where)
    if config.get("number_channels", 1) != 1:
        raise CheckpointError(f"{where}: 'number_channels' is {config['number_channels']!r}, only 1 is supported")
    quantizer = _read_quantizer(config, where)
    reader = _StageReader(where, sampling_rate, frame_samples, context_s)
    encoder = reader.read(config, "encoder", channels=1, steps_per_frame=frame_samples)
    reader.expect_end("encoder", channels=quantizer.input_dim, steps_per_frame=1)
    decoder = reader.read(config, "decoder", channels=quantizer.output_dim, steps_per_frame=1)
    reader.expect_end("decoder", channels=1, steps_per_frame=frame_samples)
    return CodecConfig(sampling_rate, frame_samples, encoder, decoder, quantizer)


def _read_any(folder: Path) -> dict[str, Any]:
    """``config.json`` under whichever of the codec's names it goes by."""
    try:
        return read_config(folder, MODEL_TYPES[1])
    except CheckpointError:
        return read_config(folder, MODEL_TYPES[0])


def _read_quantizer(config: Mapping[str, Any], where: str) -> QuantizerConfig:
    table: dict[str, Any] = require(config, "quantizer_kwargs", dict, where)
    where = f"{where}: quantizer_kwargs"
    kind = table.get("quantizer_type", config.get("quantizer_type"))
    if kind not in _QUANTIZER_TYPES:
        raise CheckpointError(f"{where}: 'quantizer_type' is {kind!r}, expected one of {', '.join(_QUANTIZER_TYPES)}")
    keys = ("input_dim", "rvq_dim", "output_dim", "num_quantizers", "codebook_size", "codebook_dim")
    return QuantizerConfig(*(_positive(table, key, where) for key in keys))


class _StageReader:
    """Walks a list of stages, carrying the width and the rate from one to the next."""

    def __init__(self, where: str, sampling_rate: int, frame_samples: int, context_s: float) -> None:
        self._where = where
        self._frame_rate = sampling_rate / frame_samples
        self._context_s = context_s
        self._channels = 0
        self._steps_per_frame = 0

    def read(
        self, config: Mapping[str, Any], side: str, *, channels: int, steps_per_frame: int
    ) -> tuple[StageConfig, ...]:
        self._channels, self._steps_per_frame = channels, steps_per_frame
        stages: list[StageConfig] = []
        for index, table in enumerate(require(config, f"{side}_kwargs", list, self._where)):
            where = f"{self._where}: {side}_kwargs[{index}]"
            if not isinstance(table, dict):
                raise CheckpointError(f"{where}: expected an object")
            kind = require(table, "module_type", str, where)
            if kind == "PatchedPretransform":
                stages.append(self._patch(table, side, where))
            elif kind == "Transformer":
                stages.append(self._transformer(table, f"{side}.{index}", where))
            else:
                raise CheckpointError(
                    f"{where}: 'module_type' is {kind!r}, expected Transformer or PatchedPretransform"
                )
        return tuple(stages)

    def expect_end(self, side: str, *, channels: int, steps_per_frame: int) -> None:
        found, expected = (self._channels, self._steps_per_frame), (channels, steps_per_frame)
        if found != expected:
            raise CheckpointError(
                f"{self._where}: {side}_kwargs end with {found[0]} channels and {found[1]} steps a frame, "
                f"expected {expected[0]} and {expected[1]}"
            )

    def _patch(self, table: Mapping[str, Any], side: str, where: str) -> PatchConfig:
        size = _positive(table, "patch_size", where)
        divided = self._steps_per_frame if side == "encoder" else self._channels
        if divided % size:
            raise CheckpointError(f"{where}: 'patch_size' {size} does not divide {divided}")
        if side == "encoder":
            self._steps_per_frame, self._channels = self._steps_per_frame // size, self._channels * size
        else:
            self._steps_per_frame, self._channels = self._steps_per_frame * size, self._channels // size
        return PatchConfig(size)

    def _transformer(self, table: Mapping[str, Any], name: str, where: str) -> TransformerConfig:
        for key, value in _FIXED.items():
            if table.get(key) != value:
                raise CheckpointError(f"{where}: {key!r} is {table.get(key)!r}, only {value!r} is supported")
        stage = TransformerConfig(
            name=name,
            input_dim=_positive(table, "input_dimension", where),
            output_dim=_positive(table, "output_dimension", where),
            model_dim=_positive(table, "d_model", where),
            feedforward_dim=_positive(table, "dim_feedforward", where),
            n_heads=_positive(table, "num_heads", where),
            n_layers=_positive(table, "num_layers", where),
            max_period=require(table, "max_period", float, where),
            has_layer_scale=table.get("layer_scale") is not None,
            steps_per_frame=self._steps_per_frame,
            context_steps=int(self._frame_rate * self._steps_per_frame * self._context_s),
        )
        if stage.input_dim != self._channels:
            raise CheckpointError(f"{where}: 'input_dimension' is {stage.input_dim}, expected {self._channels}")
        if stage.model_dim % (2 * stage.n_heads):
            raise CheckpointError(f"{where}: 'd_model' {stage.model_dim} is not {stage.n_heads} heads of even width")
        if stage.context_steps < 1:
            raise CheckpointError(f"{where}: a context of {self._context_s} s is less than one step")
        self._channels = stage.output_dim
        return stage


def _positive(table: Mapping[str, Any], key: str, where: str) -> int:
    value: int = require(table, key, int, where)
    if value < 1:
        raise CheckpointError(f"{where}: {key!r} is {value}, expected at least 1")
    return value
