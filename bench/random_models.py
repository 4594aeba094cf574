"""Models of any size with random weights, made on the device: what decoding costs does not depend on what is said."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import torch

from streamer.codec import AudioCodec
from streamer.codec.config import CodecConfig, PatchConfig, QuantizerConfig, StageConfig, TransformerConfig
from streamer.codec.weights import CodecWeights, LayerWeights, QuantizerWeights, Stage, StageWeights
from streamer.models import DelayConfig, DelayModel, LanguageConfig, SamplingParams
from streamer.models.delay_model import expected_tensors
from streamer.models.linear import WeightFormat


class _Matrix(Protocol):
    def __call__(self, n_in: int, n_out: int) -> torch.Tensor: ...


@dataclasses.dataclass(frozen=True, slots=True)
class CodecSize:
    """Layers and width of the decoder's four stages, at 12.5, 25, 50 and 100 Hz; ``context_s`` is attended to."""

    layers: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    head_dim: int
    context_s: float
    n_codebooks: int


# MOSS-TTSD v1.0: 8 B parameters. Its codec's decoder: 0.88 B, and 85 MB of keys and values a session in bfloat16.
LANGUAGE_8B = LanguageConfig(
    vocab_size=151_936,
    hidden_size=4096,
    intermediate_size=12_288,
    n_layers=36,
    n_heads=32,
    n_kv_heads=8,
    head_dim=128,
    rms_norm_eps=1e-6,
    rope_theta=1_000_000.0,
)
CODEC_FULL = CodecSize((32, 12, 12, 12), (1280, 768, 768, 768), 64, context_s=10.0, n_codebooks=16)
LANGUAGE_TINY = dataclasses.replace(
    LANGUAGE_8B,
    vocab_size=320,
    hidden_size=64,
    intermediate_size=96,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    head_dim=16,
)
CODEC_TINY = CodecSize((1, 1, 1, 1), (64, 64, 64, 64), 16, context_s=0.8, n_codebooks=4)


def random_model(
    language: LanguageConfig, n_vq: int, device: torch.device, dtype: torch.dtype, weights: WeightFormat = "native"
) -> DelayModel:
    """A delay model whose turns never end by themselves: of the two text ids inside audio, it always goes on."""
    first_id = language.vocab_size - 10
    config = DelayConfig(
        language=language,
        n_vq=n_vq,
        audio_vocab_size=1024,
        audio_pad_code=1024,
        sampling_rate=24_000,
        pad_token_id=first_id,
        im_start_token_id=first_id + 1,
        im_end_token_id=first_id + 2,
        audio_start_token_id=first_id + 3,
        audio_end_token_id=first_id + 4,
        audio_user_slot_token_id=first_id + 5,
        audio_assistant_gen_slot_token_id=first_id + 6,
        audio_assistant_delay_slot_token_id=first_id + 7,
    )
    generator = torch.Generator(device).manual_seed(0)
    tensors = {}
    for name, shape in expected_tensors(config).items():
        if len(shape) == 1:
            tensors[name] = torch.ones(shape, device=device, dtype=dtype)
        else:
            tensors[name] = torch.empty(shape, device=device, dtype=dtype).normal_(0, 0.02, generator=generator)
    # Equal logits: the greedy text head takes the lower id, which goes on.
    tensors["lm_heads.0.weight"][first_id + 6 : first_id + 8] = 0
    sampling = dataclasses.replace(SamplingParams(), text_temperature=0.0)
    return DelayModel(config, sampling, tensors, name="random", weights=weights)


def random_codec(size: CodecSize, device: torch.device, dtype: torch.dtype) -> AudioCodec:
    """A codec that decodes; it has no encoder."""
    generator = torch.Generator(device).manual_seed(1)

    def matrix(n_in: int, n_out: int, of: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(n_in, n_out, device=device, dtype=of).normal_(0, n_in**-0.5, generator=generator)

    stages: list[Stage] = []
    configs: list[StageConfig] = []
    channels = size.widths[0]
    for i, (n_layers, width) in enumerate(zip(size.layers, size.widths, strict=True)):
        steps, last = 2**i, i == 3
        config = TransformerConfig(
            name=f"decoder.{2 * i}",
            input_dim=channels,
            output_dim=240 if last else width,
            model_dim=width,
            feedforward_dim=4 * width,
            n_heads=width // size.head_dim,
            n_layers=n_layers,
            max_period=10_000.0,
            has_layer_scale=True,
            steps_per_frame=steps,
            context_steps=int(12.5 * steps * size.context_s),
        )
        input_proj = matrix(channels, width) if channels != width else None
        output_proj = matrix(width, 240) if last and width != 240 else None
        layers = tuple(_layer(width, matrix, device, dtype) for _ in range(n_layers))
        patch = PatchConfig(240 if last else 2)
        stages += [StageWeights(config, input_proj, output_proj, layers), patch]
        configs += [config, patch]
        channels = config.output_dim // patch.size
    books, entries, width = size.n_codebooks, 1024, size.widths[0]
    quantizer = QuantizerWeights(
        input_proj=None,
        output_proj=None,
        in_projs=(None,) * books,
        directions=matrix(books * entries, 8, torch.float32).view(books, entries, 8),
        decoded=matrix(books * entries, width, torch.float32),
    )
    quantizer_config = QuantizerConfig(width, width, width, books, entries, 8)
    codec_config = CodecConfig(24_000, 1920, (), tuple(configs), quantizer_config)
    return AudioCodec(codec_config, CodecWeights((), tuple(stages), quantizer, dtype))


def _layer(width: int, matrix: _Matrix, device: torch.device, dtype: torch.dtype) -> LayerWeights:
    ones, zeros = (fill(width, device=device, dtype=dtype) for fill in (torch.ones, torch.zeros))
    return LayerWeights(
        norm1_weight=ones,
        norm1_bias=zeros,
        qkv=matrix(width, 3 * width),
        out=matrix(width, width) * 0.1,
        norm2_weight=ones,
        norm2_bias=zeros,
        up=matrix(width, 4 * width),
        down=matrix(4 * width, width) * 0.1,
    )
