"""The baseline: a checkpoint of the delay model as plain Hugging Face modules, decoded by an eager loop.

It does what the publishers' ``generate`` does: one module for each table and head, transformers' Qwen3 with a
``DynamicCache``, penalty, top-k and sorted top-p on full logits, rows appended by ``torch.cat``, audio at the end.
Where their code spends time that its results do not need, this one does not: the heads read the newest row only, the
delay state is Python integers, no attention mask is kept, and a filter that is switched off costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import DynamicCache, Qwen3Config, Qwen3Model
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

from streamer.checkpoint import load_tensors, read_config, resolve_checkpoint
from streamer.codec import AudioCodec
from streamer.models.config import MODEL_TYPE, DelayConfig, SamplingParams
from streamer.text.delay_pattern import undelay_codes


class HuggingFaceLoop(nn.Module):
    """The checkpoint's modules under their published names, and the loop around them. One sequence at a time."""

    def __init__(self, config: DelayConfig, language: Qwen3Config, default_sampling: SamplingParams) -> None:
        super().__init__()
        self.config = config
        self.default_sampling = default_sampling
        hidden, n_codes = language.hidden_size, config.audio_vocab_size + 1
        self.language_model = Qwen3Model(language)
        self.emb_ext = nn.ModuleList(nn.Embedding(n_codes, hidden) for _ in range(config.n_vq))
        sizes = [language.vocab_size, *[n_codes] * config.n_vq]
        self.lm_heads = nn.ModuleList(nn.Linear(hidden, size, bias=False) for size in sizes)

    @classmethod
    def from_pretrained(
        cls, path_or_hub_id: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> HuggingFaceLoop:
        """Load a published checkpoint; :class:`CheckpointError` says what is wrong with it."""
        folder = resolve_checkpoint(path_or_hub_id)
        language = Qwen3Config(**read_config(folder, MODEL_TYPE)["language_config"])
        # Modules without memory, so that no time is spent on random weights that are replaced at once.
        with torch.device("meta"):
            loop = cls(DelayConfig.from_folder(folder), language, SamplingParams.from_folder(folder))
        shapes = {name: tuple(tensor.shape) for name, tensor in loop.state_dict().items()}
        loop.load_state_dict(load_tensors(folder, shapes, dtype=dtype, device=device), assign=True)
        loop.language_model.rotary_emb = Qwen3RotaryEmbedding(language).to(device)
        return loop.eval()

    @torch.inference_mode()
    def generate(
        self, prompt_rows: torch.Tensor, sampling: SamplingParams | None = None, *, seed: int = 0, max_rows: int = 4096
    ) -> torch.Tensor:
        """Decode after a prompt (P, 1+n_vq) to im_end or ``max_rows``: the new rows (R, 1+n_vq) int64, on the CPU."""
        settings = sampling or self.default_sampling
        device = next(self.parameters()).device
        rows = newest = prompt_rows.to(device)
        generator = torch.Generator(device).manual_seed(seed)
        cache = DynamicCache(config=self.language_model.config)
        state = _State.after(self.config, rows[:, 0].tolist())
        text_id = None
        while text_id != self.config.im_end_token_id and len(rows) < len(prompt_rows) + max_rows:
            hidden = self._forward(newest, cache)
            logits = [head(hidden).float() for head in self.lm_heads]
            text_id = self._text_id(logits[0], state, settings, generator)
            codes = self._codes(logits[1:], rows, state, settings, generator)
            newest = torch.cat((torch.tensor([text_id], device=device), codes))[None]
            rows = torch.cat((rows, newest))
            state.advance(text_id)
        return rows[len(prompt_rows) :].cpu()

    def audio(self, new_rows: torch.Tensor, codec: AudioCodec) -> torch.Tensor:
        """Audio (samples,) float32, on the CPU, of all whole frames that begin in these rows, decoded in one piece."""
        return codec.decode(undelay_codes(new_rows[:, 1:], self.config.audio_pad_code)).cpu()

    def _forward(self, rows: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
        """Run new rows (N, 1+n_vq); the last one's hidden state (1, hidden)."""
        embedded = self.language_model.embed_tokens(rows[:, 0])
        for book, table in enumerate(self.emb_ext, start=1):
            embedded = embedded + table(rows[:, book])
        output = self.language_model(inputs_embeds=embedded[None], past_key_values=cache, use_cache=True)
        hidden: torch.Tensor = output.last_hidden_state[:, -1]
        return hidden

    def _text_id(
        self, logits: torch.Tensor, state: _State, sampling: SamplingParams, generator: torch.Generator
    ) -> int:
        c = self.config
        if state.delayed_length is not None:
            ending = state.delayed_length < c.n_vq
            return c.audio_assistant_delay_slot_token_id if ending else c.audio_end_token_id
        scores = _scaled(logits, sampling.text_temperature)
        gen, delay = c.audio_assistant_gen_slot_token_id, c.audio_assistant_delay_slot_token_id
        if state.is_audio:
            allowed = torch.full_like(scores, -torch.inf)
            allowed[:, [gen, delay]] = scores[:, [gen, delay]]
            scores = allowed
        else:
            scores[:, [c.pad_token_id, gen, delay, c.audio_end_token_id]] = -torch.inf
        if state.step == 0:
            scores[:, delay] = -torch.inf
        if state.step <= c.n_vq:
            scores[:, c.im_end_token_id] = -torch.inf
        greedy = sampling.text_temperature == 0
        return int(_draw(scores, greedy, sampling.text_top_k, sampling.text_top_p, generator))

    def _codes(
        self,
        logits: list[torch.Tensor],
        rows: torch.Tensor,
        state: _State,
        sampling: SamplingParams,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """The next row's codes (n_vq,). As in the published loop, codebook 0 is drawn alone, the others together."""
        c, s = self.config, sampling
        codes = rows.new_full((c.n_vq,), c.audio_pad_code)
        first, end = state.delayed_length or 0, min(state.audio_length, c.n_vq)
        for part in (range(first, min(end, 1)), range(max(first, 1), end)):
            if not len(part):
                continue
            scores = _scaled(torch.cat([logits[book] for book in part]), s.audio_temperature)
            scores[:, c.audio_pad_code] = -torch.inf
            penalise(scores, rows[:, 1] if part.start == 0 else rows[:, 2:], s.audio_repetition_penalty)
            greedy = s.audio_temperature == 0
            codes[part.start : part.stop] = _draw(scores, greedy, s.audio_top_k, s.audio_top_p, generator)
        return codes


@dataclass(slots=True)
class _State:
    """Where a sequence stands in the delay pattern; ``delayed_length`` None before its first delay slot."""

    config: DelayConfig
    audio_length: int = 0
    delayed_length: int | None = None
    is_audio: bool = False
    step: int = 0

    @classmethod
    def after(cls, config: DelayConfig, text_ids: list[int]) -> _State:
        start, gen = config.audio_start_token_id, config.audio_assistant_gen_slot_token_id
        if text_ids[-1] not in (start, gen):
            return cls(config)
        return cls(config, audio_length=text_ids[::-1].index(start) + 1, is_audio=True)

    def advance(self, text_id: int) -> None:
        c = self.config
        gen, delay = c.audio_assistant_gen_slot_token_id, c.audio_assistant_delay_slot_token_id
        if text_id in (c.audio_start_token_id, gen, delay):
            self.audio_length += 1
        if text_id == c.audio_start_token_id:
            self.is_audio = True
        if text_id == c.audio_end_token_id:
            self.audio_length, self.is_audio = 0, False
        if text_id == delay and self.delayed_length is None:
            self.delayed_length = 0
        if self.delayed_length is not None:
            self.delayed_length += 1
            if self.delayed_length > c.n_vq:
                self.delayed_length = None
        self.step += 1


def _scaled(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    return logits / temperature if temperature else logits.clone()


def penalise(scores: torch.Tensor, history: torch.Tensor, penalty: float) -> None:
    """Push down, in place, every token of (N, vocab) that the history holds."""
    if penalty == 1:
        return
    seen = history.unique()
    found = scores[:, seen]
    scores[:, seen] = torch.where(found > 0, found / penalty, found * penalty)


def kept(scores: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """(N, vocab) with what top-k and then top-p drop at minus infinity; 0 and 1 switch them off."""
    if 0 < top_k < scores.shape[-1]:
        scores = scores.masked_fill(scores < scores.topk(top_k).values[:, -1:], -torch.inf)
    if top_p < 1:
        probabilities, ids = scores.softmax(-1).sort(descending=True)
        # The token that crosses p is kept: what counts is the mass before it.
        beyond = probabilities.cumsum(-1) - probabilities > top_p
        scores = scores.masked_fill(torch.zeros_like(beyond).scatter_(-1, ids, beyond), -torch.inf)
    return scores


def _draw(scores: torch.Tensor, greedy: bool, top_k: int, top_p: float, generator: torch.Generator) -> torch.Tensor:
    """A token for each of (N, vocab) rows: (N,)."""
    if greedy:
        return scores.argmax(-1)
    probabilities = kept(scores, top_k, top_p).softmax(-1)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]
