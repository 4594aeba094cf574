"""sample_codes: the same codes from its implementations, the right frequencies, and no regard for company."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from kernels.sampling_inputs import Heads, assert_drawn_from, exact_distribution, random_heads, random_slots

from streamer_kernels import SamplingSlots, candidate_distribution, sample_codes
from streamer_kernels.philox import philox_uniform
from streamer_kernels.philox_host import philox_uniform as philox_uniform_host
from streamer_kernels.sample_rows import host, naive

Op = Callable[..., torch.Tensor]
OPS = pytest.mark.parametrize("op", [naive.sample_codes, host.sample_codes], ids=["naive", "host"])


def simple_heads(logits: torch.Tensor, *, temperature: float = 0.0) -> Heads:
    """All codebooks of sequence i draw from slot i; no filters, nothing seen. logits: (B, n_vq, V)."""
    batch, n_vq, n_ids = logits.shape
    sampling = SamplingSlots.allocate(batch, n_vq, n_ids, torch.device("cpu"))
    sampling.temperature[:] = temperature
    sampling.seed[:] = torch.arange(batch)
    zeros = torch.zeros(batch, dtype=torch.int64)
    return Heads(logits, torch.arange(batch), sampling, zeros + 3, zeros, zeros + n_vq)


@pytest.mark.parametrize("shared_history", [True, False])
@pytest.mark.parametrize("n_ids", [5, 65, 1025])
@pytest.mark.parametrize("n_vq", [1, 4, 16])
def test_the_cpu_version_draws_what_the_naive_one_draws(n_vq: int, n_ids: int, shared_history: bool) -> None:
    torch.manual_seed(n_vq * n_ids)
    for batch in (1, 2, 7, 20):
        heads = random_heads(batch, n_vq, n_ids, shared_history=shared_history)
        codes, history = heads.run(naive.sample_codes)
        codes_host, history_host = heads.run(host.sample_codes)
        assert torch.equal(codes_host, codes)
        assert torch.equal(history_host, history)


def test_ties_with_the_last_place_count_though_few_codes_are_sorted() -> None:
    torch.manual_seed(20)
    heads = random_heads(150, 4, 1025)
    # So few levels that dozens of codes share the last place, in some rows and not in others.
    heads.logits[:, :2] = (torch.randn(150, 2, 1025) * 1.5).round() / 1.5
    heads.sampling.temperature[:] = 1.3
    heads.sampling.penalty[:] = 1.0
    heads.sampling.top_p[:] = torch.linspace(0.4, 1.0, 152)[:, None]
    heads.sampling.top_k[:] = torch.tensor([3, 20, 40, 7, 50])
    assert torch.equal(heads.run(host.sample_codes)[0], heads.run(naive.sample_codes)[0])


def test_a_million_draws_follow_the_exact_distribution() -> None:
    torch.manual_seed(0)
    n_vq, n_ids, rows, repeats = 4, 17, 2500, 100
    settings = [(0.8, 0, 1.0), (1.1, 9, 1.0), (1.7, 0, 0.9), (1.1, 12, 0.8)]
    logits = torch.randn(n_vq, n_ids) * 1.5
    logits[3] = (logits[3] * 2).round() / 2
    sampling = SamplingSlots.allocate(1, n_vq, n_ids, torch.device("cpu"))
    sampling.seed[:] = 2024
    for k, (temperature, top_k, top_p) in enumerate(settings, start=1):
        sampling.temperature[0, k], sampling.top_k[0, k], sampling.top_p[0, k] = temperature, top_k, top_p
    zeros = torch.zeros(rows, dtype=torch.int64)
    counts = torch.zeros(n_vq, n_ids)
    for repeat in range(repeats):
        steps = torch.arange(rows) + repeat * rows
        codes = host.sample_codes(logits.expand(rows, -1, -1), zeros, sampling, steps, zeros, zeros + n_vq, known=None)
        counts += torch.stack([torch.bincount(codes[:, k], minlength=n_ids) for k in range(n_vq)])
    for k, setting in enumerate(settings):
        probability = exact_distribution(logits[k, :-1], *setting)
        assert_drawn_from(counts[k], torch.cat((probability, torch.zeros(1))))


@OPS
def test_a_draw_depends_on_no_neighbour_and_no_slot_number(op: Op) -> None:
    torch.manual_seed(1)
    heads = random_heads(12, 4, 65)
    codes, _ = heads.run(op)
    order = torch.randperm(len(codes))
    new_slots = torch.randperm(len(heads.sampling.seed))
    moved = SamplingSlots(*(getattr(heads.sampling, name)[new_slots.argsort()] for name in SamplingSlots.__slots__))
    assert heads.known is not None
    for part in (order, order[:5], order[-1:]):
        some = Heads(
            heads.logits[part],
            new_slots[heads.slots[part]],
            moved,
            heads.step[part],
            heads.first[part],
            heads.end[part],
            heads.known[part],
        )
        assert torch.equal(some.run(op)[0], codes[part])


@OPS
def test_seed_row_and_codebook_are_the_key_of_a_draw(op: Op) -> None:
    torch.manual_seed(2)
    heads = simple_heads(torch.randn(1, 1, 1025).expand(40, 2, 1025), temperature=1.0)
    by_seed, _ = heads.run(op)
    heads.sampling.seed[:] = 0
    same, _ = heads.run(op)
    by_step, _ = replace(heads, step=torch.arange(40)).run(op)
    assert len(same.unique(dim=0)) == 1
    assert int(same[0, 0]) != int(same[0, 1])
    assert len(by_seed[:, 0].unique()) > 30
    assert len(by_step[:, 0].unique()) > 30


@OPS
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_pad_code_is_for_idle_codebooks_alone(op: Op, temperature: float) -> None:
    logits = torch.zeros(1, 4, 9)
    logits[..., -1] = 100.0
    heads = simple_heads(logits, temperature=temperature)
    codes, _ = replace(heads, first=torch.tensor([1]), end=torch.tensor([3])).run(op)
    assert (codes == 8).tolist() == [[True, False, False, True]]


@OPS
def test_known_codes_win_over_draw_and_mask(op: Op) -> None:
    heads = simple_heads(torch.eye(8)[None, :3])
    known = torch.tensor([[-1, 5, 6]])
    codes, _ = replace(heads, end=torch.tensor([2]), known=known).run(op)
    assert codes.tolist() == [[0, 5, 6]]


@OPS
def test_greedy_takes_the_lowest_id_among_equals(op: Op) -> None:
    logits = torch.zeros(1, 4, 300)
    logits[0, 1, [77, 200]] = 1.0
    logits[0, 2, :100] = -torch.inf
    logits[0, 3] = -torch.inf
    assert simple_heads(logits).run(op)[0].tolist() == [[0, 77, 100, 0]]


@OPS
def test_a_row_without_a_finite_score_gives_its_lowest_code(op: Op) -> None:
    logits = torch.full((1, 2, 65), -torch.inf)
    logits[0, 1, [9, 30]] = torch.inf
    assert simple_heads(logits, temperature=1.0).run(op)[0].tolist() == [[0, 9]]


@OPS
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_poisoned_row_stays_in_range_and_alone(op: Op, temperature: float) -> None:
    torch.manual_seed(3)
    heads = simple_heads(torch.randn(3, 4, 65), temperature=temperature)
    codes, _ = heads.run(op)
    heads.logits[1] = torch.nan
    poisoned, _ = heads.run(op)
    assert torch.equal(poisoned[[0, 2]], codes[[0, 2]])
    assert 0 <= int(poisoned.min()) <= int(poisoned.max()) < 65


@OPS
def test_sequences_of_one_slot_are_allowed_where_nobody_looks(op: Op) -> None:
    torch.manual_seed(4)
    heads = simple_heads(torch.randn(4, 2, 65), temperature=1.0)
    crowded = replace(heads, slots=torch.tensor([0, 3, 3, 3]))
    assert torch.equal(crowded.run(op)[0][0], heads.run(op)[0][0])


@OPS
def test_codebooks_note_their_codes_where_they_read(op: Op) -> None:
    heads = simple_heads(torch.zeros(1, 3, 9))
    heads.sampling.history_of[:] = torch.tensor([0, 1, 1])
    _, history = replace(heads, known=torch.tensor([[2, 3, 4]])).run(op)
    assert [of.nonzero()[:, 0].tolist() for of in history[0]] == [[2], [3, 4], []]


@OPS
def test_a_seen_code_is_penalised_in_every_codebook_that_shares_its_history(op: Op) -> None:
    logits = torch.tensor([2.0, 1.5, -1.0, -1.0]).repeat(1, 4, 1)
    logits[0, 3, :2] = -torch.inf
    logits[0, 3, 2] = -0.75
    heads = simple_heads(torch.nn.functional.pad(logits, (0, 1)))
    heads.sampling.penalty[:] = 1.5
    heads.sampling.history_of[:] = torch.tensor([0, 1, 1, 1])
    heads.sampling.history[0, 1, [0, 2]] = True
    # 2 / 1.5 is below 1.5, and -0.75 * 1.5 below -1.
    assert heads.run(op)[0].tolist() == [[0, 1, 1, 3]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_read_as_what_they_are(dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    heads = random_heads(4, 4, 65)
    heads = replace(heads, logits=heads.logits.to(dtype))
    widened = replace(heads, logits=heads.logits.float())
    assert torch.equal(heads.run(sample_codes)[0], widened.run(sample_codes)[0])


def test_ties_with_the_token_that_crosses_p_are_all_kept() -> None:
    logits = torch.tensor([[2.0, 1.0, 1.0, 1.0, 0.0]])
    one = torch.ones(1)
    # The best has 46 % of the mass, and each of the next 17 %.
    ids, log_p = candidate_distribution(logits, one, torch.tensor([0]), one * 0.5, one, None)
    assert sorted(ids[log_p > -torch.inf].tolist()) == [0, 1, 2, 3]


def test_numpy_gives_the_numbers_of_torch() -> None:
    torch.manual_seed(6)
    seed = torch.randint(-(2**63), 2**63 - 1, (5,))
    ids = torch.randint(0, 2**20, (5, 7))
    head, step = torch.randint(0, 33, (5,)), torch.randint(0, 2**31, (5,))
    expected = philox_uniform(seed[:, None], ids, head[:, None], step[:, None])
    found = philox_uniform_host(seed.numpy(), ids.numpy(), head.numpy(), step.numpy())
    assert torch.equal(torch.from_numpy(found), expected)


def test_slots_start_greedy_and_without_a_history() -> None:
    assert random_slots(1, 2, 5).history.any()
    fresh = SamplingSlots.allocate(1, 2, 5, torch.device("cpu"))
    assert not fresh.history.any()
    assert float(fresh.temperature.max()) == 0.0
