"""A codec checkpoint's tensors, folded into the form the fast paths want.

Matrices are stored (in, out), which small batches multiply faster; LayerScale is folded into the matrices in
front of it, weight norm into plain matrices, and each codebook into a table of already decoded vectors.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F

from streamer.checkpoint import load_tensors, tensor_files
from streamer.codec.config import CodecConfig, PatchConfig, QuantizerConfig, StageConfig, TransformerConfig

Tensors = dict[str, torch.Tensor]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One transformer layer; ``out`` and ``down`` carry their branch's LayerScale.

    Its matrices may be of fewer bits than what they are multiplied with, which is then rounded to their type.
    """

    norm1_weight: torch.Tensor  # (model,)
    norm1_bias: torch.Tensor
    qkv: torch.Tensor  # (model, 3 * model)
    out: torch.Tensor  # (model, model)
    norm2_weight: torch.Tensor
    norm2_bias: torch.Tensor
    up: torch.Tensor  # (model, feedforward)
    down: torch.Tensor  # (feedforward, model)


@dataclass(frozen=True, slots=True)
class StageWeights:
    config: TransformerConfig
    input_proj: torch.Tensor | None  # (input, model)
    output_proj: torch.Tensor | None  # (model, output)
    layers: tuple[LayerWeights, ...]


@dataclass(frozen=True, slots=True)
class Affine:
    weight: torch.Tensor  # (in, out)
    bias: torch.Tensor  # (out,)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.bias, x, self.weight)


@dataclass(frozen=True, slots=True)
class QuantizerWeights:
    """Always float32: codes come from the nearest neighbour, and rounding would move them."""

    input_proj: Affine | None
    output_proj: Affine | None
    in_projs: tuple[Affine | None, ...]
    directions: torch.Tensor  # (codebooks, entries, codebook_dim), unit length
    decoded: torch.Tensor  # (codebooks * entries, rvq_dim): out_proj of every entry
    fingerprint: str = ""  # of the codebooks as stored, in whatever floating-point type


Stage = PatchConfig | StageWeights


@dataclass(frozen=True, slots=True)
class CodecWeights:
    encoder: tuple[Stage, ...]
    decoder: tuple[Stage, ...]
    quantizer: QuantizerWeights
    dtype: torch.dtype  # of the stages


def with_bf16_matrices(stage: Stage) -> Stage:
    """The stage with its layers' matrices in bfloat16 and all else as it was: half the bytes to read a frame."""
    if isinstance(stage, PatchConfig):
        return stage
    names = ("qkv", "out", "up", "down")
    layers = (replace(layer, **{name: getattr(layer, name).bfloat16() for name in names}) for layer in stage.layers)
    return replace(stage, layers=tuple(layers))


def load_codec_weights(
    folder: Path, config: CodecConfig, *, device: torch.device | str, dtype: torch.dtype
) -> CodecWeights:
    """Reads and folds; :class:`CheckpointError` names a tensor that is missing, extra or misshapen."""
    stored = tensor_files(folder).keys()
    shapes = _quantizer_shapes(config.quantizer, legacy=any(name.endswith(".weight_g") for name in stored))
    for stage in (*config.encoder, *config.decoder):
        if isinstance(stage, TransformerConfig):
            shapes |= _stage_shapes(stage)
    # Folding happens in float32 whatever the target, so that it adds no rounding of its own.
    tensors = load_tensors(folder, shapes, dtype=torch.float32, device=device)
    return CodecWeights(
        encoder=tuple(_fold_stage(stage, tensors, dtype) for stage in config.encoder),
        decoder=tuple(_fold_stage(stage, tensors, dtype) for stage in config.decoder),
        quantizer=_fold_quantizer(config.quantizer, tensors),
        dtype=dtype,
    )


def _stage_shapes(stage: TransformerConfig) -> Shapes:
    model, feedforward = stage.model_dim, stage.feedforward_dim
    shapes: Shapes = {}
    if stage.input_dim != model:
        shapes[f"{stage.name}.input_proj.weight"] = (model, stage.input_dim)
    if stage.output_dim != model:
        shapes[f"{stage.name}.output_proj.weight"] = (stage.output_dim, model)
    for index in range(stage.n_layers):
        prefix = f"{stage.name}.transformer.layers.{index}"
        for norm in ("norm1", "norm2"):
            shapes[f"{prefix}.{norm}.weight"] = shapes[f"{prefix}.{norm}.bias"] = (model,)
        shapes[f"{prefix}.self_attn.in_projs.0.weight"] = (3 * model, model)
        shapes[f"{prefix}.self_attn.out_projs.0.weight"] = (model, model)
        shapes[f"{prefix}.linear1.weight"] = (feedforward, model)
        shapes[f"{prefix}.linear2.weight"] = (model, feedforward)
        if stage.has_layer_scale:
            shapes[f"{prefix}.layer_scale_1.scale"] = shapes[f"{prefix}.layer_scale_2.scale"] = (model,)
    return shapes


def _quantizer_shapes(config: QuantizerConfig, *, legacy: bool) -> Shapes:
    """``legacy``: weight norm spelt ``weight_g`` and ``weight_v``, as before parametrizations."""
    gain, direction = (
        ("weight_g", "weight_v")
        if legacy
        else ("parametrizations.weight.original0", "parametrizations.weight.original1")
    )
    shapes: Shapes = {}

    def add(name: str, n_in: int, n_out: int) -> None:
        if n_in != n_out:
            shapes[f"{name}.bias"] = (n_out,)
            shapes[f"{name}.{gain}"] = (n_out, 1, 1)
            shapes[f"{name}.{direction}"] = (n_out, n_in, 1)

    add("quantizer.input_proj", config.input_dim, config.rvq_dim)
    add("quantizer.output_proj", config.rvq_dim, config.output_dim)
    for index in range(config.n_codebooks):
        prefix = f"quantizer.quantizers.{index}"
        shapes[f"{prefix}.codebook.weight"] = (config.codebook_size, config.codebook_dim)
        add(f"{prefix}.in_proj", config.rvq_dim, config.codebook_dim)
        add(f"{prefix}.out_proj", config.codebook_dim, config.rvq_dim)
    return shapes


def _fold_stage(stage: StageConfig, tensors: Tensors, dtype: torch.dtype) -> Stage:
    if isinstance(stage, PatchConfig):
        return stage

    def matrix(name: str, scale: torch.Tensor | None = None) -> torch.Tensor:
        weight = tensors.pop(f"{name}.weight").t()
        return (weight if scale is None else weight * scale).to(dtype).contiguous()

    def layer(prefix: str) -> LayerWeights:
        return LayerWeights(
            norm1_weight=tensors.pop(f"{prefix}.norm1.weight").to(dtype),
            norm1_bias=tensors.pop(f"{prefix}.norm1.bias").to(dtype),
            qkv=matrix(f"{prefix}.self_attn.in_projs.0"),
            out=matrix(f"{prefix}.self_attn.out_projs.0", tensors.pop(f"{prefix}.layer_scale_1.scale", None)),
            norm2_weight=tensors.pop(f"{prefix}.norm2.weight").to(dtype),
            norm2_bias=tensors.pop(f"{prefix}.norm2.bias").to(dtype),
            up=matrix(f"{prefix}.linear1"),
            down=matrix(f"{prefix}.linear2", tensors.pop(f"{prefix}.layer_scale_2.scale", None)),
        )

    return StageWeights(
        config=stage,
        input_proj=matrix(f"{stage.name}.input_proj") if stage.input_dim != stage.model_dim else None,
        output_proj=matrix(f"{stage.name}.output_proj") if stage.output_dim != stage.model_dim else None,
        layers=tuple(layer(f"{stage.name}.transformer.layers.{index}") for index in range(stage.n_layers)),
    )


def _fold_quantizer(config: QuantizerConfig, tensors: Tensors) -> QuantizerWeights:
    codebooks = [tensors[f"quantizer.quantizers.{index}.codebook.weight"] for index in range(config.n_codebooks)]
    decoded = []
    for index, codebook in enumerate(codebooks):
        out_proj = _fold_affine(f"quantizer.quantizers.{index}.out_proj", tensors)
        decoded.append(codebook if out_proj is None else out_proj(codebook))
    return QuantizerWeights(
        input_proj=_fold_affine("quantizer.input_proj", tensors),
        output_proj=_fold_affine("quantizer.output_proj", tensors),
        in_projs=tuple(
            _fold_affine(f"quantizer.quantizers.{index}.in_proj", tensors) for index in range(config.n_codebooks)
        ),
        directions=F.normalize(torch.stack(codebooks), dim=-1),
        decoded=torch.cat(decoded),
        fingerprint=_fingerprint(torch.stack(codebooks)),
    )


def _fingerprint(codebooks: torch.Tensor) -> str:
    return hashlib.sha256(codebooks.cpu().numpy().astype("<f4").tobytes()).hexdigest()[:16]


def _fold_affine(name: str, tensors: Tensors) -> Affine | None:
    """A 1x1 convolution under weight norm, w = g v / |v| (Salimans and Kingma, 2016), or None."""
    if f"{name}.bias" not in tensors:
        return None
    legacy = f"{name}.weight_g" in tensors
    gain = tensors[f"{name}.weight_g" if legacy else f"{name}.parametrizations.weight.original0"]
    direction = tensors[f"{name}.weight_v" if legacy else f"{name}.parametrizations.weight.original1"]
    weight = gain * direction / direction.norm(dim=(1, 2), keepdim=True)
    return Affine(weight.squeeze(-1).t().contiguous(), tensors[f"{name}.bias"])
