"""Where the alignment heads look: read out row by row, against all scores of the whole sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch
from support import GOLDEN

from streamer import DelayModel, SamplingParams
from streamer.checkpoint import load_tensors
from streamer.models import DelayConfig, KVPool, SlotDecoder
from streamer.models.alignment import AlignmentReader
from streamer.models.delay_model import expected_tensors
from training.network import DelayNetwork, attention_bias

FOLDER = GOLDEN / "delay-nvq4" / "model"
SAMPLED = SamplingParams(audio_temperature=0.8, text_temperature=0.3)
# Blocks of two sequences that lie among each other, as they may in a pool.
BLOCKS = ([9, 2, 11, 4, 6, 13, 0, 15], [1, 8, 3, 10, 5, 12, 7, 14])


@cache
def model_with(heads: tuple[tuple[int, int], ...]) -> DelayModel:
    config = replace(DelayConfig.from_folder(FOLDER), alignment_heads=heads)
    tensors = load_tensors(FOLDER, expected_tensors(config), dtype=torch.float32, device="cpu")
    return DelayModel(config, SAMPLED, tensors, "small")


@torch.no_grad()
def naive_offsets(rows: torch.Tensor, heads: Sequence[tuple[int, int]], text_rows: tuple[int, int]) -> torch.Tensor:
    """(L,): the text row that each of a sequence's rows looks at, by attention over everything."""
    config = DelayConfig.from_folder(FOLDER)
    network = DelayNetwork(config).float()
    network.load_state_dict(load_tensors(FOLDER, expected_tensors(config), dtype=torch.float32, device="cpu"))
    positions = torch.arange(len(rows))[None]
    x = network.language_model.embed_tokens(rows[None, :, 0])
    for book, table in enumerate(network.emb_ext, start=1):
        x = x + table(rows[None, :, book])
    angles = positions[..., None].float() * network.language_model.inverse_frequencies
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    bias = attention_bias(torch.ones_like(positions), x.dtype)
    scores = []
    for layer in network.language_model.layers:
        x, layer_scores = layer(x, cos, sin, bias)
        scores.append(layer_scores[0])
    shares = [scores[layer][head, :, slice(*text_rows)].softmax(-1) for layer, head in heads]
    return torch.stack(shares).mean(0).argmax(-1)


def prompt_of(seed: int, n_rows: int, config: DelayConfig) -> torch.Tensor:
    """Random text, then audio_start."""
    rows = torch.full((n_rows, 1 + config.n_vq), config.audio_pad_code)
    rows[:, 0] = torch.randint(20, 90, (n_rows,), generator=torch.Generator().manual_seed(seed))
    rows[-1, 0] = config.audio_start_token_id
    return rows


def open_sequence(
    decoder: SlotDecoder, slot: int, prompt: torch.Tensor, blocks: list[int], pieces: Sequence[int]
) -> None:
    model, table, start = decoder.model, torch.tensor(blocks), 0
    for n_rows in pieces:
        queries = model.new_queries(n_rows)
        hidden = model.prefill(prompt[start : start + n_rows], decoder.pool, table, start, queries)
        start += n_rows
    assert start == len(prompt)
    decoder.open(slot, prompt, blocks, hidden[-1], SAMPLED, seed=slot, max_rows=50, query=queries[-1])


@pytest.mark.parametrize("heads", [((1, 3),), ((0, 1),), ((0, 2), (1, 0), (1, 1))])
def test_each_row_is_read_as_attention_over_the_whole_sequence_has_it(heads: tuple[tuple[int, int], ...]) -> None:
    model = model_with(heads)
    decoder = SlotDecoder(model, model.new_pool(20), 3, max_rows=128)
    prompts = [prompt_of(0, 70, model.config), prompt_of(1, 45, model.config)]
    spans = [(3, 60), (10, 40)]
    slots = [2, 0]
    # One prompt in one piece, one in several of which the last is a single row.
    for slot, prompt, blocks, pieces, span in zip(slots, prompts, BLOCKS, ([70], [30, 14, 1]), spans, strict=True):
        open_sequence(decoder, slot, prompt, blocks, pieces)
        decoder.follow(slot, blocks, span)
    drawn, found = [], []
    for _ in range(30):
        rows = decoder.draw(torch.tensor(slots)).rows
        found.append(decoder.text_offsets(slots))
        drawn.append(rows)
        decoder.forward(torch.tensor(slots))
    for i, (prompt, span) in enumerate(zip(prompts, spans, strict=True)):
        whole = torch.cat((prompt, torch.stack(drawn)[:, i]))
        # A row is drawn from the one before it.
        expected = naive_offsets(whole, heads, span)[len(prompt) - 1 : -1]
        assert len(expected.unique()) > 1
        assert torch.stack(found)[:, i].tolist() == expected.tolist()


def test_company_changes_no_bit_and_a_longer_text_of_a_neighbour_no_answer() -> None:
    model = model_with(((1, 3),))
    config, pool = model.config, model.new_pool(20)
    generator = torch.Generator().manual_seed(0)
    pool.k.normal_(generator=generator)
    queries = torch.randn(4, 1, config.language.head_dim, generator=generator)
    spans = [(0, 100), (5, 6), (7, 300), (20, 61)]
    together = AlignmentReader(config.language, config.alignment_heads, pool, 4, model.dtype)
    expected = []
    for slot, span in enumerate(spans):
        alone = AlignmentReader(config.language, config.alignment_heads, pool, 4, model.dtype)
        for reader in (alone, together):
            reader.follow(slot, range(20), span)
        expected.append(alone.read([slot], queries).item())
    assert together.read([0, 1, 2, 3], queries).tolist() == expected
    assert together.read([3, 1], queries).tolist() == [expected[3], expected[1]]
    assert expected[1] == 0
    # A slot that had a long text and now has a short one sees nothing of what it had.
    together.follow(2, range(20), (0, 2))
    assert together.read([2, 0], queries).tolist()[0] in (0, 1)


def test_keys_of_a_float8_pool_are_read_as_its_attention_reads_them() -> None:
    model = model_with(((1, 3),))
    language, heads = model.config.language, model.config.alignment_heads
    small = KVPool(language, 4, 16, torch.float8_e4m3fn, model.device)
    small.k.copy_(torch.randn(small.k.shape, generator=torch.Generator().manual_seed(1)))
    wide = KVPool(language, 4, 16, torch.float32, model.device)
    wide.k.copy_(small.k.float())
    queries = torch.randn(1, 1, language.head_dim, generator=torch.Generator().manual_seed(2))
    found = []
    for pool in (small, wide):
        reader = AlignmentReader(language, heads, pool, 1, model.dtype)
        reader.follow(0, [3, 0, 2], (1, 40))
        found.append(reader.read([0], queries).item())
    assert found[0] == found[1]
