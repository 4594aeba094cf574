"""The delay pattern's state machine, replayed over rows that the publishers' code made."""

from __future__ import annotations

import pytest
import torch
from support import load_golden, load_model

from streamer.models import DelayState, FrameAssembler
from streamer.text import undelay_codes

CASES = [
    (checkpoint, case["name"], case["penalty"])
    for checkpoint in ("delay-nvq4", "delay-nvq16")
    for case in load_golden(checkpoint).info["cases"]
]


@pytest.mark.parametrize(("checkpoint", "mode", "penalty"), CASES)
def test_published_rows_are_what_the_state_allows(checkpoint: str, mode: str, penalty: float) -> None:
    arrays, config = load_golden(checkpoint).arrays, load_model(checkpoint).config
    state = DelayState.after_prompt(config, arrays[f"prompt/{mode}"][:, 0].tolist())
    for row in arrays[f"greedy/{mode}/penalty_{penalty}"].tolist():
        assert not state.finished
        if state.forced_text_id is not None:
            assert row[0] == state.forced_text_id
        elif state.is_audio:
            assert row[0] in state.allowed_in_audio
        else:
            assert row[0] not in state.excluded_outside_audio
        drawn = [k for k, code in enumerate(row[1:]) if code != config.audio_pad_code]
        assert drawn == list(state.active_codebooks)
        state.advance(row[0])


def test_frames_come_out_as_the_whole_sequence_has_them() -> None:
    arrays, config = load_golden("delay-nvq4").arrays, load_model("delay-nvq4").config
    rows = arrays["greedy/generation/penalty_1.0"][:, 1:]
    assembler = FrameAssembler(config.n_vq, config.audio_pad_code)
    frames = [frame for row in rows.tolist() if (frame := assembler.push(row)) is not None]
    in_audio = (rows != config.audio_pad_code).any(1).nonzero()[:, 0]
    block = rows[in_audio[0] : in_audio[-1] + 1]
    assert len(frames) > 10
    assert torch.equal(torch.tensor(frames), undelay_codes(block, config.audio_pad_code))


def test_a_requested_tail_ends_the_block_with_its_last_frame() -> None:
    config = load_model("delay-nvq4").config
    state = DelayState.after_prompt(config, [config.audio_start_token_id])
    for _ in range(6):
        assert state.forced_text_id is None
        state.advance(config.audio_assistant_gen_slot_token_id)
    state.tail_requested = True
    tail = []
    while not state.audio_complete:
        assert state.forced_text_id is not None
        tail.append(state.active_codebooks)
        state.advance(state.forced_text_id)
    assert tail == [range(4), range(1, 4), range(2, 4), range(3, 4)]
    assert state.forced_text_id == config.audio_end_token_id


def test_a_generation_slot_without_its_audio_start_is_refused() -> None:
    config = load_model("delay-nvq4").config
    with pytest.raises(ValueError, match="no audio_start"):
        DelayState.after_prompt(config, [5, config.audio_assistant_gen_slot_token_id])
