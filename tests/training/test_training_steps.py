"""The training loop: the network is the server's model, a step learns, a stopped run ends like one that was not."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import streamer
from streamer.checkpoint import CheckpointError
from streamer.models import DelayConfig
from training.average import main as average_main
from training.export import export
from training.network import ALIGNMENT_HEAD, REFERENCE_HEAD, DelayNetwork
from training.packing import Batch, draw_batch
from training.samples import SampleMaker
from training.train_lm import (
    LOG,
    MODEL,
    STATE,
    TrainConfig,
    Trainer,
    code_losses,
    guide_loss,
    load_network,
    main,
    reference_loss,
    run,
    sound_loss,
)
from training.words import SOUNDS_PER_WORD, SoundTable

N_SOUNDS = 10
SMALL = TrainConfig(steps=4, sequences=1, rows=512, books_per_step=3, seed=3)


def batch_of(maker: SampleMaker, seed: int) -> Batch:
    empty_row = torch.tensor([256, *[1024] * 8])
    return draw_batch(maker, random.Random(seed), 2, 640, empty_row)


@pytest.fixture
def network() -> DelayNetwork:
    return load_network(MODEL)


def trainer_of(network: DelayNetwork, config: TrainConfig = SMALL) -> Trainer:
    return Trainer(network, config, N_SOUNDS, torch.device("cpu"))


@torch.no_grad()
def test_network_gives_the_servers_logits_also_when_packed(network: DelayNetwork, maker: SampleMaker) -> None:
    batch = batch_of(maker, 3)
    assert batch.documents[0].max() > 1
    inside = batch.documents[0] == 2
    model = streamer.DelayModel.from_pretrained(MODEL)
    text, codes = model.logits(batch.rows[0, inside])
    hidden = network(batch.rows, batch.positions, batch.documents).hidden[0, inside]
    assert torch.allclose(network.lm_heads[0](hidden), text, atol=2e-3)
    assert torch.allclose(network.audio_logits(hidden, range(8))[..., :1024], codes[..., :1024], atol=2e-3)


@torch.no_grad()
def test_loss_is_the_mean_over_learned_cells(network: DelayNetwork, maker: SampleMaker) -> None:
    batch = batch_of(maker, 3)
    forward = network(batch.rows, batch.positions, batch.documents)
    text, codes = code_losses(network, forward, batch, [0, 5])
    hidden = forward.hidden
    for column, loss in ((0, text), (1, codes[0]), (6, codes[1])):
        picked = batch.learned[:, 1:, column]
        logits = network.lm_heads[column](hidden[:, :-1][picked])
        wanted = batch.targets[:, 1:, column][picked]
        expected = -logits.log_softmax(-1)[torch.arange(len(wanted)), wanted].mean()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


@torch.no_grad()
def test_in_heavy_rows_a_code_counts_more(network: DelayNetwork, maker: SampleMaker) -> None:
    batch = batch_of(maker, 3)
    forward = network(batch.rows, batch.positions, batch.documents)
    picked = batch.learned[:, 1:, 1]
    logits = network.lm_heads[1](forward.hidden[:, :-1][picked])
    wanted = batch.targets[:, 1:, 1][picked]
    each = -logits.log_softmax(-1)[torch.arange(len(wanted)), wanted]
    times = 1 + 2 * batch.heavy[:, 1:][picked].float()
    _, (loss,) = code_losses(network, forward, batch, [0], heavy_weight=3.0)
    assert loss.item() == pytest.approx(((each * times).sum() / times.sum()).item(), rel=1e-4)
    assert loss.item() != pytest.approx(each.mean().item(), rel=1e-3)


@torch.no_grad()
def test_reference_loss_is_of_the_attention_to_the_reference_of_who_speaks(
    network: DelayNetwork, maker: SampleMaker, config: DelayConfig
) -> None:
    batch = batch_of(maker, 3)
    forward = network(batch.rows, batch.positions, batch.documents)
    # A trained head is so sure that its loss is lost in float32's rounding.
    forward = forward._replace(reference_scores=0.1 * forward.reference_scores)
    attention = forward.reference_scores.softmax(-1)
    is_reference = batch.rows[..., 0] == config.audio_user_slot_token_id
    losses = []
    for b, row in (batch.speakers * ~is_reference).nonzero().tolist():
        same_document = batch.documents[b] == batch.documents[b, row]
        theirs = is_reference[b] & same_document & (batch.speakers[b] == batch.speakers[b, row])
        assert 18 <= theirs.sum() <= 36 + config.n_vq - 1
        losses.append(-attention[b, row, theirs].sum().log())
    expected = float(sum(losses)) / len(losses)
    assert reference_loss(forward, batch, config.audio_user_slot_token_id).item() == pytest.approx(expected, rel=1e-4)


def test_no_references_no_reference_loss(network: DelayNetwork, maker: SampleMaker, config: DelayConfig) -> None:
    batch = batch_of(maker, 3)
    batch.speakers.zero_()
    forward = network(batch.rows, batch.positions, batch.documents)
    assert reference_loss(forward, batch, config.audio_user_slot_token_id).item() == 0.0


def test_a_step_lowers_every_loss_of_its_batch(network: DelayNetwork, maker: SampleMaker, table: SoundTable) -> None:
    batch = batch_of(maker, 3)
    trainer = trainer_of(network, TrainConfig(steps=100, books_per_step=8))
    before = trainer.train(batch, table.sounds)
    for _ in range(3):
        after = trainer.train(batch, table.sounds)
    for name in ("code0", "code7", "sound", "reference", "guide"):
        assert after[name] < before[name], name


@torch.no_grad()
def test_scores_are_those_of_their_heads(network: DelayNetwork, maker: SampleMaker) -> None:
    seen: list[torch.Tensor] = []
    for layer, _ in (ALIGNMENT_HEAD, REFERENCE_HEAD):
        attention = network.language_model.get_submodule(f"layers.{layer}.self_attn")
        attention.register_forward_hook(lambda module, args, result: seen.append(result[1]))
    batch = batch_of(maker, 3)
    forward = network(batch.rows, batch.positions, batch.documents)
    # The reference head lies in the lower layer.
    assert torch.equal(forward.reference_scores, seen[0][:, REFERENCE_HEAD[1]])
    assert torch.equal(forward.alignment_scores, seen[1][:, ALIGNMENT_HEAD[1]])
    # A row cannot look at later ones, nor into another document.
    blind = batch.documents[:, :, None] != batch.documents[:, None, :]
    assert forward.alignment_scores[blind].max() == -torch.inf


@torch.no_grad()
def test_guide_and_sound_losses_are_the_mean_over_their_rows(
    network: DelayNetwork, maker: SampleMaker, table: SoundTable
) -> None:
    batch = batch_of(maker, 3)
    forward = network(batch.rows, batch.positions, batch.documents)
    log_attention = forward.alignment_scores.log_softmax(-1)
    each = [
        -sum(
            weight * log_attention[b, row, at]
            for weight, at in zip(weights, batch.guide[b, row], strict=True)
            if weight
        )
        for b in range(2)
        for row, weights in enumerate(batch.guide_weights[b].tolist())
        if sum(weights) > 0
    ]
    assert guide_loss(forward, batch).item() == pytest.approx(float(sum(each)) / len(each), rel=1e-4)

    head = torch.nn.Linear(256, SOUNDS_PER_WORD * N_SOUNDS)
    losses = [
        torch.nn.functional.cross_entropy(head(forward.words[b, row]).view(SOUNDS_PER_WORD, -1), table.sounds[word])
        for b in range(2)
        for row, word in enumerate(batch.sounds[b].tolist())
        if word >= 0
    ]
    assert sound_loss(head, forward, batch, table.sounds).item() == pytest.approx(
        float(sum(losses)) / len(losses), rel=1e-4
    )


def test_numbers_below_one_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("steps", "sequences", "rows", "books", "questions"):
        lengths = {} if name == "steps" else {"--steps": "1"}
        given = {"--corpus": str(tmp_path), "--run": str(tmp_path), **lengths, f"--{name}": "0"}
        with pytest.raises(SystemExit):
            main([part for pair in given.items() for part in pair])
        assert f"--{name} is 0, expected at least 1" in capsys.readouterr().err


def test_held_out_losses_are_logged_and_teach_nothing(maker: SampleMaker, table: SoundTable, tmp_path: Path) -> None:
    trainer = trainer_of(load_network(MODEL), replace(SMALL, steps=1))
    run(trainer, maker, maker, table.sounds, tmp_path, save_seconds=1e9)
    (line,) = map(json.loads, (tmp_path / LOG).read_text().splitlines())
    weights = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    again = trainer.measure([batch_of(maker, 3)], "held_out")
    assert set(again) == {f"held_out{book}" for book in range(8)} <= set(line)
    # Here both are drawn from the same corpus.
    assert [line[f"seen{book}"] for book in range(8)] == [line[f"held_out{book}"] for book in range(8)]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in trainer.network.state_dict().items())


def test_a_run_by_the_clock_falls_to_its_end(maker: SampleMaker, table: SoundTable, tmp_path: Path) -> None:
    trainer = trainer_of(load_network(MODEL), replace(SMALL, steps=1_000_000))
    run(trainer, maker, maker, table.sounds, tmp_path, save_seconds=1e9, minutes=1e-6)
    # The clock is read after ten steps of getting going and twenty that are timed; no time is left for more than one.
    assert trainer.step == trainer.config.steps == 31


def test_the_guide_lets_go_after_a_while() -> None:
    weights = [TrainConfig(steps=10).guide_weight_at(step) for step in range(10)]
    assert weights == [0.3] * 4 + [0.03] * 6


def test_a_stopped_run_ends_as_if_it_had_not_been(maker: SampleMaker, table: SoundTable, tmp_path: Path) -> None:
    whole = trainer_of(load_network(MODEL))
    run(whole, maker, maker, table.sounds, tmp_path / "whole", save_seconds=1e9)

    stopped = trainer_of(load_network(MODEL))
    for step in range(2):
        stopped.train(stopped.draw(maker, f"batch:3:{step}"), table.sounds)
    stopped.save(tmp_path / "stopped" / STATE)
    resumed = trainer_of(load_network(MODEL))
    resumed.resume(tmp_path / "stopped" / STATE)
    run(resumed, maker, maker, table.sounds, tmp_path / "stopped", save_seconds=1e9)

    assert resumed.step == whole.step == 4
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name


def test_learning_rate_warms_up_stays_and_falls() -> None:
    config = TrainConfig(steps=1000, learning_rate=1.0)
    rates = [config.learning_rate_at(step) for step in range(1000)]
    assert rates[0] == 1 / 40
    assert rates[40:250] == [1.0] * 210
    assert np.all(np.diff(rates[250:]) <= 0)
    assert rates[625] == pytest.approx(0.5)
    assert rates[-1] == 0.02


def test_export_is_a_checkpoint_the_server_loads(network: DelayNetwork, maker: SampleMaker, tmp_path: Path) -> None:
    export(network.state_dict(), MODEL, tmp_path)
    model = streamer.DelayModel.from_pretrained(tmp_path)
    assert model.default_sampling == streamer.DelayModel.from_pretrained(MODEL).default_sampling
    rows = batch_of(maker, 3).rows[0, :50]
    with torch.no_grad():
        hidden = network(rows[None], torch.arange(50)[None], torch.ones(1, 50, dtype=torch.int64)).hidden[0]
        assert torch.allclose(model.logits(rows)[0], network.lm_heads[0](hidden), atol=0.05)


def test_export_refuses_what_the_server_would_not_load(network: DelayNetwork, tmp_path: Path) -> None:
    tensors = network.state_dict()
    del tensors["lm_heads.3.weight"]
    with pytest.raises(CheckpointError, match=r"lm_heads\.3"):
        export(tensors, MODEL, tmp_path)


def test_the_mean_of_checkpoints_is_one_the_server_loads(
    network: DelayNetwork, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = network.state_dict()
    export({name: 3 * tensor for name, tensor in ours.items()}, MODEL, tmp_path / "thrice")
    models = ["--models", str(MODEL), str(tmp_path / "thrice")]

    def factor(*shares: str) -> float:
        assert average_main([*models, *shares, "--out", str(tmp_path / "out")]) == 0
        streamer.DelayModel.from_pretrained(tmp_path / "out")
        made = load_network(tmp_path / "out").state_dict()
        assert made.keys() == ours.keys()
        factors = {round(float(made[name].norm() / tensor.norm()), 3) for name, tensor in ours.items()}
        assert len(factors) == 1
        return factors.pop()

    assert factor() == 2.0
    assert factor("--shares", "1", "3") == 2.5

    other = dict(ours)
    del other["lm_heads.3.weight"]
    (tmp_path / "other").mkdir()
    save_file(other, tmp_path / "other" / "model.safetensors")
    for name, told in (("other", "'lm_heads.3.weight' is not of the same shape"), ("nowhere", "no such file")):
        assert average_main(["--models", str(MODEL), str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
        assert told in capsys.readouterr().err
    for shares in (("1",), ("1", "0")):
        with pytest.raises(SystemExit):
            average_main([*models, "--shares", *shares, "--out", str(tmp_path / "out")])
        assert "--shares: one number above 0 for each" in capsys.readouterr().err
