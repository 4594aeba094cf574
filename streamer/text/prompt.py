"""Prompt rows of the delay models: the user message, the reference audio, the audio to continue."""

from __future__ import annotations

import itertools
import re
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch

from streamer.text.delay_pattern import delay_codes
from streamer.text.script import MAX_SPEAKERS

Codes: TypeAlias = "torch.Tensor | np.ndarray[Any, Any]"


class PromptConfig(Protocol):
    """What a prompt needs to know of a model's config."""

    @property
    def n_vq(self) -> int: ...
    @property
    def audio_vocab_size(self) -> int: ...
    @property
    def audio_pad_code(self) -> int: ...
    @property
    def pad_token_id(self) -> int: ...
    @property
    def im_start_token_id(self) -> int: ...
    @property
    def im_end_token_id(self) -> int: ...
    @property
    def audio_start_token_id(self) -> int: ...
    @property
    def audio_end_token_id(self) -> int: ...
    @property
    def audio_user_slot_token_id(self) -> int: ...
    @property
    def audio_assistant_gen_slot_token_id(self) -> int: ...
    @property
    def audio_assistant_delay_slot_token_id(self) -> int: ...


class _Given(str):
    """A stretch of the prompt that came from the user: it may not act as a structural token."""

    __slots__ = ()


def build_prompt(
    tokenizer: Any,
    config: PromptConfig,
    text: str,
    references: Sequence[Codes | None] | None = None,
    prompt_audio: Codes | Sequence[Codes] | None = None,
    instruction: str | None = None,
    tokens: int | None = None,
    quality: str | None = None,
    sound_event: str | None = None,
    ambient_sound: str | None = None,
    language: str | None = None,
) -> torch.Tensor:
    """Prompt rows (rows, 1 + n_vq) int64: the text id, then one code per codebook.

    ``references[i]`` are the (frames, n_vq) codes of speaker i+1's voice, or None. ``prompt_audio`` is what
    has been said already (its words begin ``text``); generation then goes on in the middle of its audio
    block. Several blocks, having only white space between them, are one block. ``tokens`` is the wanted
    length in frames.
    Structural tokens (``<|im_end|>``, audio slots) written out in the given texts stay plain text.

    Raises ValueError, naming the argument, for codes of a wrong shape, type or range, and for more than 5
    references.
    """
    voices = _check_references(references, config)
    spoken = None if prompt_audio is None else _joined_audio(prompt_audio, config)
    fields = [
        ("Instruction", instruction),
        ("Tokens", tokens),
        ("Quality", quality),
        ("Sound Event", sound_event),
        ("Ambient Sound", ambient_sound),
        ("Language", language),
        ("Text", text),
    ]
    before, after = _chat_frame(tokenizer)
    parts: list[str | torch.Tensor] = [f"{before}<user_inst>\n- Reference(s):\n", *_reference_parts(voices)]
    for name, value in fields:
        parts += [f"\n- {name}:\n", "None" if value is None else _Given(value)]
    parts.append(f"\n</user_inst>{after}")

    rows = list(_message_rows(tokenizer, config, parts))
    if spoken is not None:
        rows.append(_text_rows([config.audio_start_token_id], config))
        # The n_vq-1 tail rows are cut off, so that decoding goes on inside the block.
        delayed = delay_codes(spoken, config.audio_pad_code)[: len(spoken)]
        rows.append(_audio_rows(delayed, config.audio_assistant_gen_slot_token_id))
    return torch.cat(rows)


def text_tokens(tokenizer: Any, config: PromptConfig, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """The ids that end a message of this text, the template's last words included, and the characters that each covers.

    Characters count from the text's first; the template's are below 0 or past its end.
    """
    _, after = _chat_frame(tokenizer)
    head = "\n- Text:\n"
    texts = [head, _Given(text), f"\n</user_inst>{after}"]
    whole = "".join(texts)
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    for start, end in itertools.pairwise([0, *_cuts(tokenizer, config, texts), len(whole)]):
        piece = tokenizer(whole[start:end], add_special_tokens=False, return_offsets_mapping=True)
        ids += piece["input_ids"]
        spans += [(start + begin - len(head), start + until - len(head)) for begin, until in piece["offset_mapping"]]
    return ids, spans


def _check_references(references: Sequence[Codes | None] | None, config: PromptConfig) -> list[torch.Tensor | None]:
    if references is None:
        return []
    if len(references) > MAX_SPEAKERS:
        raise ValueError(f"references: {len(references)} given, there are at most {MAX_SPEAKERS} speakers")
    return [
        None if codes is None else _checked_codes(codes, config, f"references[{index}]")
        for index, codes in enumerate(references)
    ]


def _joined_audio(prompt_audio: Codes | Sequence[Codes], config: PromptConfig) -> torch.Tensor:
    if isinstance(prompt_audio, (torch.Tensor, np.ndarray)):
        return _checked_codes(prompt_audio, config, "prompt_audio")
    if len(prompt_audio) == 0:
        raise ValueError("prompt_audio: the list of blocks is empty; give None where there is no audio")
    return torch.cat([_checked_codes(codes, config, f"prompt_audio[{i}]") for i, codes in enumerate(prompt_audio)])


def _checked_codes(codes: Codes, config: PromptConfig, name: str) -> torch.Tensor:
    checked = torch.as_tensor(codes).cpu()
    if checked.ndim != 2 or checked.shape[1] != config.n_vq or len(checked) == 0:
        raise ValueError(f"{name}: shape is {tuple(checked.shape)}, expected (frames, {config.n_vq})")
    if checked.is_floating_point() or checked.is_complex() or checked.dtype == torch.bool:
        raise ValueError(f"{name}: type is {checked.dtype}, expected integers")
    low, high = int(checked.min()), int(checked.max())
    if low < 0 or high >= config.audio_vocab_size:
        raise ValueError(f"{name}: codes lie in {low}..{high}, expected 0..{config.audio_vocab_size - 1}")
    return checked.to(torch.int64)


def _reference_parts(voices: list[torch.Tensor | None]) -> Iterator[str | torch.Tensor]:
    if all(codes is None for codes in voices):
        yield "None"
        return
    gap = ""
    for speaker, codes in enumerate(voices, start=1):
        if codes is not None:
            yield f"{gap}[S{speaker}]:\n"
            yield codes
            gap = "\n"


_FRAMES: weakref.WeakKeyDictionary[Any, tuple[str, str]] = weakref.WeakKeyDictionary()


def _chat_frame(tokenizer: Any) -> tuple[str, str]:
    """What the chat template puts before a user message, and after it up to the assistant's first word."""
    if tokenizer not in _FRAMES:
        marker = "user message"
        wrapped = tokenizer.apply_chat_template(
            [{"role": "user", "content": marker}], tokenize=False, add_generation_prompt=True
        )
        before, _, after = wrapped.partition(marker)
        _FRAMES[tokenizer] = before, after
    return _FRAMES[tokenizer]


def _message_rows(tokenizer: Any, config: PromptConfig, parts: list[str | torch.Tensor]) -> Iterator[torch.Tensor]:
    """Rows of a message; text up to an audio block is tokenised in one go, as BPE merges cross parts."""
    texts: list[str] = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
            continue
        yield _text_rows([*_token_ids(tokenizer, config, texts), config.audio_start_token_id], config)
        yield _audio_rows(delay_codes(part, config.audio_pad_code), config.audio_user_slot_token_id)
        yield _text_rows([config.audio_end_token_id], config)
        texts = []
    yield _text_rows(_token_ids(tokenizer, config, texts), config)


def _text_rows(ids: list[int], config: PromptConfig) -> torch.Tensor:
    rows = torch.full((len(ids), 1 + config.n_vq), config.audio_pad_code, dtype=torch.int64)
    rows[:, 0] = torch.tensor(ids, dtype=torch.int64)
    return rows


def _audio_rows(delayed: torch.Tensor, slot: int) -> torch.Tensor:
    return torch.nn.functional.pad(delayed, (1, 0), value=slot)


def _token_ids(tokenizer: Any, config: PromptConfig, texts: list[str]) -> list[int]:
    whole = "".join(texts)
    borders = [0, *_cuts(tokenizer, config, texts), len(whole)]
    ids: list[int] = []
    for start, end in itertools.pairwise(borders):
        ids += tokenizer.encode(whole[start:end], add_special_tokens=False)
    return ids


def _cuts(tokenizer: Any, config: PromptConfig, texts: list[str]) -> Iterator[int]:
    """Where to cut the joined texts so that no structural token is found in what the user gave.

    A cut goes after the first character of such a token's spelling: neither half spells it any more.
    """
    spelling = _structural_tokens(tokenizer, config)
    whole = "".join(texts)
    given: list[tuple[int, int]] = []
    end = 0
    for part in texts:
        start, end = end, end + len(part)
        if isinstance(part, _Given):
            given.append((start, end))
    position = 0
    while hit := spelling.search(whole, position):
        position = hit.end()
        if any(start < hit.end() and hit.start() < end for start, end in given):
            position = hit.start() + 1
            yield position


def _structural_tokens(tokenizer: Any, config: PromptConfig) -> re.Pattern[str]:
    """Finds the added tokens that shape a message, the longest first, as the tokenizer does.

    Added tokens that are plain words or bracketed cues (``[S1]``, ``[laugh]``) are the user's to write.
    """
    ids = {
        config.pad_token_id,
        config.im_start_token_id,
        config.im_end_token_id,
        config.audio_start_token_id,
        config.audio_end_token_id,
        config.audio_user_slot_token_id,
        config.audio_assistant_gen_slot_token_id,
        config.audio_assistant_delay_slot_token_id,
    }
    spellings = [
        word
        for word, token in tokenizer.get_added_vocab().items()
        if len(word) > 1 and (token in ids or re.search(r"[<>\n]", word))
    ]
    spellings.sort(key=len, reverse=True)
    return re.compile("|".join(map(re.escape, spellings)) or r"(?!)")
