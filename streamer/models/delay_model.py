"""The delay model (``moss_tts_delay``): rows of one text id and n_vq codes in, logits for the next row out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from streamer.checkpoint import load_tensors, resolve_checkpoint
from streamer.models.config import DelayConfig, SamplingParams
from streamer.models.delay import DelayState
from streamer.models.linear import WeightFormat, make_linear
from streamer.models.qwen3 import KVPool, Qwen3Decoder, repeat_last
from streamer.models.row_sampler import RowSampler, SequenceView
from streamer_kernels import embed_rows

BLOCK_ROWS = 16
# The prompt goes through the layers in pieces of this many rows: bounded memory, and in the engine bounded delay.
PREFILL_CHUNK_ROWS = 256


class DelayModel:
    """A loaded checkpoint. All methods run without gradients and may be called from any one thread at a time."""

    def __init__(
        self,
        config: DelayConfig,
        default_sampling: SamplingParams,
        tensors: dict[str, torch.Tensor],
        name: str,
        weights: WeightFormat = "native",
    ) -> None:
        self.config = config
        self.default_sampling = default_sampling
        self.name = name
        language = {k.removeprefix(_LANGUAGE): v for k, v in tensors.items() if k.startswith(_LANGUAGE)}
        self._text_table = language.pop("embed_tokens.weight")
        self._audio_table = torch.stack([tensors[f"emb_ext.{i}.weight"] for i in range(config.n_vq)])
        text_head = tensors["lm_heads.0.weight"]
        pair = [config.audio_assistant_gen_slot_token_id, config.audio_assistant_delay_slot_token_id]
        # The only two text ids that may follow inside audio.
        self.pair_head = text_head[pair].contiguous()
        self._text_head = text_head.t().contiguous()
        heads = [tensors[f"lm_heads.{i + 1}.weight"] for i in range(config.n_vq)]
        # In 8 bits, the heads would cost more in what they say than they save in what they weigh.
        self._audio_heads = make_linear(torch.cat(heads), "native" if weights == "fp8" else weights)
        tensors.clear()
        self._decoder = Qwen3Decoder(config.language, language, weights, config.alignment_heads)

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        weights: WeightFormat = "native",
    ) -> DelayModel:
        """Load a published checkpoint from a folder or by its hub id; :class:`CheckpointError` says what is wrong.

        ``weights`` "bf16" keeps the matrices of layers and audio heads in bfloat16, "fp8" those of the layers in 8
        bits; everything else stays in ``dtype``.
        """
        folder = resolve_checkpoint(path_or_hub_id)
        config = DelayConfig.from_folder(folder)
        sampling = SamplingParams.from_folder(folder)
        tensors = load_tensors(folder, expected_tensors(config), dtype=dtype, device=device)
        return cls(config, sampling, tensors, name=Path(path_or_hub_id).name, weights=weights)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._text_table.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of activations, of the KV cache if nothing else is asked for, and of weights that are not in 8 bits."""
        return self._text_table.dtype

    def new_pool(self, n_blocks: int, block_rows: int = BLOCK_ROWS, dtype: torch.dtype | None = None) -> KVPool:
        """A KV pool that fits this model; ``dtype`` float8_e4m3fn takes half the memory of bfloat16."""
        return KVPool(self.config.language, n_blocks, block_rows, dtype or self.dtype, self.device)

    def new_queries(self, n_rows: int) -> torch.Tensor:
        """(n_rows, alignment heads, head_dim) for ``prefill`` and ``decode`` to fill in: those heads' queries."""
        shape = (n_rows, len(self.config.alignment_heads), self.config.language.head_dim)
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    @torch.inference_mode()
    def prefill(
        self, rows: torch.Tensor, pool: KVPool, table: torch.Tensor, start: int, queries: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Run C prompt rows (C, 1+n_vq) from row ``start`` on; returns their hidden states (C, hidden)."""
        return self._decoder.prefill(self._embed(rows), pool, table, start, queries)

    @torch.inference_mode()
    def decode(
        self,
        rows: torch.Tensor,
        pool: KVPool,
        tables: torch.Tensor,
        positions: torch.Tensor,
        queries: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run the newest row of each of B sequences (B, 1+n_vq); returns (B, hidden)."""
        return self._decoder.decode(self._embed(rows), pool, tables, positions, queries)

    @torch.inference_mode()
    def text_logits(self, hidden: torch.Tensor, ids: torch.Tensor | None = None) -> torch.Tensor:
        """(N, vocab) float32, or (N, len(ids)) for some ids only: inside audio two of them are all that is needed."""
        head = self._text_head if ids is None else self._text_head[:, ids]
        # For a lone row with the bits that it would have in company.
        return (repeat_last(hidden) @ head)[: hidden.shape[0]].float()

    @torch.inference_mode()
    def audio_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(N, n_vq, audio_vocab_size+1) float32; the pad code, which is never sampled, is at -inf."""
        logits = self._audio_heads(repeat_last(hidden))[: hidden.shape[0]].float()
        logits = logits.view(hidden.shape[0], self.config.n_vq, self.config.audio_vocab_size + 1)
        logits[..., self.config.audio_pad_code] = -torch.inf
        return logits

    def logits(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Text and audio logits at every one of R rows (R, 1+n_vq) of one sequence, in one pass."""
        rows = self._check_rows(rows)
        pool, table = self._pool_for(len(rows))
        hidden = self.prefill(rows, pool, table, 0)
        return self.text_logits(hidden), self.audio_logits(hidden)

    def stream(
        self,
        prompt_rows: torch.Tensor,
        sampling: SamplingParams | None = None,
        *,
        seed: int = 0,
        max_rows: int = 4096,
    ) -> Iterator[torch.Tensor]:
        """Decode row by row after a prompt (P, 1+n_vq) int64, until im_end or ``max_rows``.

        Yields each new row (1+n_vq,) int64 on the CPU. The same prompt, sampling and seed give the same rows.
        ``sampling`` defaults to the checkpoint's own. One sequence alone, nothing shared: the engine's naive twin.
        """
        rows = self._check_rows(prompt_rows)
        pool, table = self._pool_for(len(rows) + max_rows)
        for start in range(0, len(rows), PREFILL_CHUNK_ROWS):
            hidden = self.prefill(rows[start : start + PREFILL_CHUNK_ROWS], pool, table, start)[-1:]
        sampler = RowSampler(self, n_slots=1)
        sampler.open(0, sampling or self.default_sampling, seed, rows)
        sequence = SequenceView(0, DelayState.after_prompt(self.config, rows[:, 0].tolist()))
        for position in range(len(rows), len(rows) + max_rows):
            row = sampler.sample(hidden, [sequence])
            sequence.state.advance(int(row[0, 0]))
            yield row[0].cpu()
            if sequence.state.finished:
                return
            hidden = self.decode(row, pool, table[None], torch.tensor([position], device=self.device))

    def generate(
        self,
        prompt_rows: torch.Tensor,
        sampling: SamplingParams | None = None,
        *,
        seed: int = 0,
        max_rows: int = 4096,
    ) -> torch.Tensor:
        """All rows of :meth:`stream` at once: (R, 1+n_vq) int64, new rows only."""
        rows = list(self.stream(prompt_rows, sampling, seed=seed, max_rows=max_rows))
        return torch.stack(rows) if rows else torch.empty(0, 1 + self.config.n_vq, dtype=torch.int64)

    def _embed(self, rows: torch.Tensor) -> torch.Tensor:
        return embed_rows(rows, self._text_table, self._audio_table)

    def _pool_for(self, n_rows: int) -> tuple[KVPool, torch.Tensor]:
        n_blocks = -(-n_rows // BLOCK_ROWS)
        return self.new_pool(n_blocks), torch.arange(n_blocks, device=self.device)

    def _check_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows as int64 on the model's device; ValueError unless they are ids this model has."""
        rows = torch.as_tensor(rows)
        c = self.config
        if rows.ndim != 2 or rows.shape[1] != 1 + c.n_vq or rows.shape[0] == 0:
            raise ValueError(f"prompt_rows: shape {tuple(rows.shape)}, expected (at least 1, {1 + c.n_vq})")
        if rows.dtype.is_floating_point or rows.dtype == torch.bool:
            raise ValueError(f"prompt_rows: {rows.dtype}, expected integer ids")
        if rows.min() < 0 or rows[:, 0].max() >= c.language.vocab_size or rows[:, 1:].max() > c.audio_pad_code:
            raise ValueError("prompt_rows: an id is outside the vocabulary")
        return rows.to(device=self.device, dtype=torch.int64)


_LANGUAGE = "language_model."


def expected_tensors(config: DelayConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of every tensor in a published checkpoint of this configuration."""
    hidden, vocab, codes = (
        config.language.hidden_size,
        config.language.vocab_size,
        config.audio_vocab_size + 1,
    )
    shapes: dict[str, tuple[int, ...]] = {
        f"{_LANGUAGE}embed_tokens.weight": (vocab, hidden),
        "lm_heads.0.weight": (vocab, hidden),
    }
    for i in range(config.n_vq):
        shapes[f"emb_ext.{i}.weight"] = (codes, hidden)
        shapes[f"lm_heads.{i + 1}.weight"] = (codes, hidden)
    layers = Qwen3Decoder.expected_tensors(config.language)
    shapes.update({f"{_LANGUAGE}{name}": shape for name, shape in layers.items()})
    return shapes
