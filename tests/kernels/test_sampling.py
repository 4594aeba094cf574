"""The sampler: the published filters, the drawn frequencies, and draws that depend on their key alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support import load_golden

from streamer_kernels import candidate_distribution, sample_rows
from streamer_kernels.philox import philox_uint32, philox_uniform

CASES = load_golden("sampling").info


Filters = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def settings(n: int, temperature: float, top_k: int, top_p: float, penalty: float) -> Filters:
    return (
        torch.full((n,), temperature),
        torch.full((n,), top_k, dtype=torch.int64),
        torch.full((n,), top_p),
        torch.full((n,), penalty),
    )


@pytest.mark.parametrize("case", CASES, ids=[c["case"] for c in CASES])
def test_kept_tokens_and_probabilities_are_the_published_ones(case: dict[str, Any]) -> None:
    arrays = load_golden("sampling").arrays
    logits = arrays[f"{case['case']}/logits"].float()
    n, vocab = logits.shape
    kept = arrays[f"{case['case']}/kept"]
    expected = torch.zeros(n, vocab)
    expected[kept[:, 0], kept[:, 1]] = arrays[f"{case['case']}/probs"].float()
    seen = torch.zeros(n, vocab, dtype=torch.bool)
    if case["history"]:
        # Rows of a case are codebooks that share one history.
        seen[:, arrays[f"{case['case']}/history"].flatten()] = True
    filters = settings(n, case["temperature"], case["top_k"], case["top_p"], case["repetition_penalty"])
    ids, log_p = candidate_distribution(logits, *filters, seen)
    found = torch.zeros(n, vocab).scatter(1, ids, log_p.exp())
    assert torch.equal(found > 0, expected > 0)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_ties_with_the_last_place_are_all_kept() -> None:
    logits = torch.tensor([[3.0, 1.0, 1.0, 1.0, 0.0, -1.0]]).repeat(2, 1)
    temperature, _, top_p, penalty = settings(2, 1.0, 0, 1.0, 1.0)
    ids, log_p = candidate_distribution(logits, temperature, torch.tensor([2, 1]), top_p, penalty, None)
    kept = [set(row[p > -torch.inf].tolist()) for row, p in zip(ids, log_p, strict=True)]
    assert kept == [{0, 1, 2, 3}, {0}]


def draw(logits: torch.Tensor, temperature: float, seeds: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    n = len(logits)
    heads = torch.ones(n, dtype=torch.int64)
    return sample_rows(logits, *settings(n, temperature, 5, 0.95, 1.0), None, seeds, rows, heads)


def test_draws_follow_the_distribution() -> None:
    n = 40_000
    logits = torch.tensor([2.0, 1.5, 1.0, 0.5, 0.0, -0.5]).repeat(n, 1)
    ids, log_p = candidate_distribution(logits[:1], *settings(1, 1.3, 5, 0.95, 1.0), None)
    probability = torch.zeros(6).scatter(0, ids[0], log_p[0].exp())
    drawn = draw(logits, 1.3, torch.full((n,), 11), torch.arange(n))
    counts = torch.bincount(drawn, minlength=6)
    assert torch.equal(counts > 0, probability > 0)
    possible = probability > 0
    expected = probability[possible] * n
    chi_square = ((counts[possible] - expected) ** 2 / expected).sum()
    # The 99.9th percentile for at most five possible tokens, four degrees of freedom.
    assert chi_square < 18.5


def test_a_draw_depends_on_its_key_and_not_on_its_place() -> None:
    torch.manual_seed(3)
    logits, seeds, rows = torch.randn(64, 200), torch.arange(64) * 7 + 1, torch.arange(64) % 9
    together = draw(logits, 1.0, seeds, rows)
    order = torch.randperm(64)
    assert torch.equal(draw(logits[order], 1.0, seeds[order], rows[order]), together[order])
    assert torch.equal(draw(logits[5:6], 1.0, seeds[5:6], rows[5:6]), together[5:6])


def test_a_draw_depends_on_no_neighbours_settings_even_among_ties() -> None:
    torch.manual_seed(4)
    # Coarse logits, as half precision makes them: many are equal.
    logits = (torch.randn(200, 300) * 4).round() / 4
    n = len(logits)
    keys = (torch.arange(n), torch.arange(n) % 7, torch.ones(n, dtype=torch.int64))
    temperature, top_k, top_p, penalty = settings(n, 0.8, 20, 0.9, 1.0)
    alone = sample_rows(logits, temperature, top_k, top_p, penalty, None, *keys)
    for neighbour_top_k in (3, 150, 0):
        mixed = torch.where(torch.arange(n) % 2 == 0, top_k, neighbour_top_k)
        drawn = sample_rows(logits, temperature, mixed, top_p, penalty, None, *keys)
        assert torch.equal(drawn[::2], alone[::2])


@pytest.mark.parametrize("temperature", [0.0, 1e-38, 1e-6])
def test_next_to_no_temperature_is_greedy(temperature: float) -> None:
    torch.manual_seed(5)
    logits = torch.randn(40, 100) * 30
    assert torch.equal(draw(logits, temperature, torch.arange(40), torch.arange(40)), logits.argmax(-1))


def test_greedy_takes_the_lowest_id_among_equals() -> None:
    logits = torch.zeros(3, 500)
    logits[1, [77, 300]] = 1.0
    logits[2, :100] = -torch.inf
    drawn = draw(logits, 0.0, torch.arange(3), torch.arange(3))
    assert drawn.tolist() == [0, 77, 100]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), 0, 0x6627E8D5),
        ((0xFFFFFFFF,) * 4, -1, 0x408F276D),
        ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), 0x299F31D0A4093822, 0xD16CFE09),
    ],
)
def test_philox_gives_the_known_answers_of_its_authors(counter: tuple[int, ...], key: int, expected: int) -> None:
    word = philox_uint32(torch.tensor(key), *(torch.tensor(c) for c in counter))
    assert int(word) == expected


def test_uniform_numbers_stay_inside_the_open_interval() -> None:
    u = philox_uniform(torch.tensor(1), torch.arange(200_000))
    assert 0 < float(u.min()) < 1e-4
    assert 1 - 1e-4 < float(u.max()) < 1
    assert abs(float(u.mean()) - 0.5) < 2e-3
