"""Codec training runs: they learn, go on as if not stopped, keep what they should, and export what the server loads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from streamer.checkpoint import CheckpointError
from streamer.codec import AudioCodec
from training.codec_adversary import Adversary
from training.codec_checkpoint import export_codec, fresh_codec, load_codec
from training.codec_data import SpeechCorpus
from training.codec_losses import SCALES, SpectralLoss
from training.codec_network import CodecNetwork
from training.codec_trainer import CodecRunError, CodecTrainer, TrainConfig
from training.train_codec import CONFIG, LOG, STATE, export_run, main, parse_voices, run

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "codec-nq8" / "codec"
FRAME = 1920
SMALL = TrainConfig(steps=4, clips=2, frames=4, seed=3)


@pytest.fixture(scope="module")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two voices of two shards, each with a few hums of its own pitch."""
    folder: Path = tmp_path_factory.mktemp("speech")
    rng = np.random.default_rng(1)
    for voice, pitch_hz in (("high", 220), ("low", 110)):
        for number in range(2):
            lengths = rng.integers(8000, 16_000, size=3)
            hums = [np.sin(2 * np.pi * pitch_hz * rng.uniform(0.8, 1.2) * np.arange(n) / 24_000) for n in lengths]
            samples = np.concatenate(hums) * 6000 + rng.normal(0, 300, lengths.sum())
            path = folder / "speech" / voice / f"{number:05}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, samples=samples.astype(np.int16), lengths=lengths, texts=np.array(["hum"] * 3))
    return folder


@pytest.fixture(scope="module")
def corpus(corpus_folder: Path) -> SpeechCorpus:
    return SpeechCorpus([corpus_folder], FRAME)


@pytest.fixture(scope="module")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny codec's config with fewer and smaller codebooks."""
    folder: Path = tmp_path_factory.mktemp("config")
    settings = json.loads((GOLDEN / CONFIG).read_text(encoding="utf-8"))
    settings["quantizer_kwargs"] |= {"num_quantizers": 3, "codebook_size": 16}
    (folder / CONFIG).write_text(json.dumps(settings), encoding="utf-8")
    return folder


def trainer_of(network: CodecNetwork, config: TrainConfig) -> CodecTrainer:
    return CodecTrainer(network, config, torch.device("cpu"))


def assert_same(left: CodecNetwork, right: CodecNetwork) -> None:
    for name, tensor in left.state_dict().items():
        assert torch.equal(tensor, right.state_dict()[name]), name


@pytest.mark.parametrize(
    "config",
    [
        replace(SMALL, decoder_only=True),
        replace(SMALL, steps=23, bypass_steps=1, frames=2),
        replace(SMALL, adversarial=True, discriminator_steps=1),
        replace(SMALL, joining=("high",)),
    ],
    ids=["decoder", "fresh", "adversarial", "joining"],
)
def test_a_stopped_run_ends_as_if_it_had_not_been(
    config: TrainConfig, corpus: SpeechCorpus, tiny_config: Path, tmp_path: Path
) -> None:
    def start() -> CodecTrainer:
        return trainer_of(fresh_codec(tiny_config, 5) if config.bypass_steps else load_codec(GOLDEN), config)

    whole = start()
    run(whole, corpus, tmp_path, held_out_steps=1000, save_seconds=1e9)
    stopped = start()
    for _ in range(2):
        stopped.train(corpus)
    stopped.save(tmp_path / "stopped" / STATE, corpus)
    resumed = start()
    resumed.resume(torch.load(tmp_path / "stopped" / STATE, weights_only=True))
    run(resumed, corpus, tmp_path / "stopped", held_out_steps=1000, save_seconds=1e9)
    assert resumed.step == whole.step == config.steps
    assert_same(resumed.network, whole.network)
    assert torch.equal(resumed.usage.usage, whole.usage.usage)


def test_decoder_only_keeps_codes_and_improves_the_sound(corpus: SpeechCorpus) -> None:
    trainer = trainer_of(load_codec(GOLDEN), replace(SMALL, steps=30, learning_rate=3e-3, decoder_only=True))
    before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    recording = corpus.held_out("high", 1)[0]
    codes = trainer.network.encode(recording)
    measured = trainer.measure(corpus, 2)
    for _ in range(30):
        trainer.train(corpus)
    for name, tensor in trainer.network.state_dict().items():
        assert torch.equal(tensor, before[name]) == (not name.startswith("decoder.")), name
    assert torch.equal(trainer.network.encode(recording), codes)
    for voice, values in trainer.measure(corpus, 2).items():
        assert values["spectral"] < 0.8 * measured[voice]["spectral"]


def test_a_voice_joins_and_the_codes_of_the_others_stay(corpus: SpeechCorpus) -> None:
    before, recording = load_codec(GOLDEN), corpus.held_out("low", 1)[0]
    documents = torch.zeros(1, recording.shape[1] // FRAME, dtype=torch.int64)
    known_codes, spectral = before.encode(recording), SpectralLoss(24_000)

    def joined(*voices: str) -> CodecTrainer:
        trainer = trainer_of(load_codec(GOLDEN), replace(SMALL, steps=40, clips=4, learning_rate=3e-3, joining=voices))
        for _ in range(40):
            assert {"moved", "same_codes"} <= trainer.train(corpus).keys()
        return trainer

    def moved(network: CodecNetwork) -> float:
        with torch.no_grad():
            return torch.dist(network.latents(recording, documents), before.latents(recording, documents)).item()

    def distance(network: CodecNetwork) -> float:
        """Of the codes that the codec gave before, as they sound now."""
        return spectral(network.decode(known_codes).detach(), recording, range(len(SCALES))).item()

    high, both = joined("high"), joined("high", "low")
    for name, tensor in before.quantizer.state_dict().items():
        assert torch.equal(tensor, high.network.quantizer.state_dict()[name]), name
    untrained = trainer_of(load_codec(GOLDEN), SMALL).measure(corpus, 2)
    assert high.measure(corpus, 2)["high"]["spectral"] < 0.8 * untrained["high"]["spectral"]
    assert moved(high.network) < 0.8 * moved(both.network)
    assert distance(high.network) < 0.8 * distance(before)


def test_a_decoder_alone_hears_known_voices_in_their_old_codes(corpus: SpeechCorpus) -> None:
    config = replace(SMALL, steps=60, learning_rate=3e-3, decoder_only=True, joining=("high",))
    recording, spectral = corpus.held_out("low", 1)[0], SpectralLoss(24_000)
    old_codes = load_codec(GOLDEN).encode(recording)

    def joined() -> CodecNetwork:
        """A codec whose encoder knows nothing of what was."""
        network = fresh_codec(GOLDEN, 7)
        network.quantizer.load_state_dict(load_codec(GOLDEN).quantizer.state_dict())
        return network

    def distance_after_training(before: CodecNetwork) -> float:
        network = joined()
        trainer = CodecTrainer(network, config, torch.device("cpu"), before=before)
        for _ in range(60):
            trainer.train(corpus)
        assert all(map(torch.equal, network.encoder.parameters(), joined().encoder.parameters()))
        return spectral(network.decode(old_codes).detach(), recording, range(len(SCALES))).item()

    assert distance_after_training(load_codec(GOLDEN)) < 0.97 * distance_after_training(joined())


def test_a_run_with_joining_voices_goes_on_with_the_codec_it_began_from(corpus: SpeechCorpus, tmp_path: Path) -> None:
    config = replace(SMALL, joining=("high",))
    first = trainer_of(load_codec(GOLDEN), config)
    for _ in range(2):
        first.train(corpus)
    first.save(tmp_path / STATE, corpus)
    resumed = trainer_of(fresh_codec(GOLDEN, 9), config)
    resumed.resume(torch.load(tmp_path / STATE, weights_only=True))
    assert first.train(corpus) == resumed.train(corpus)


def test_fresh_weights_learn_through_the_quantizer(corpus: SpeechCorpus, tiny_config: Path) -> None:
    config = replace(SMALL, steps=40, learning_rate=3e-3, bypass_steps=15)
    trainer = trainer_of(fresh_codec(tiny_config, 5), config)
    before = trainer.measure(corpus, 2)
    recordings = torch.cat([corpus.held_out(voice, 1)[0] for voice in ("high", "low")], 1)

    def n_used() -> list[int]:
        codes = trainer.network.encode(recordings)
        return [len(codes[..., book].unique()) for book in range(3)]

    reports = [trainer.train(corpus) for _ in range(15)]
    assert "commitment" not in reports[-1]
    used_at_random = n_used()
    assert "commitment" in trainer.train(corpus)
    # The quantizer was just set from the data, which random projections see as a point or two.
    assert max(used_at_random) < min(n_used())
    for _ in range(24):
        trainer.train(corpus)
    for voice, values in trainer.measure(corpus, 2).items():
        assert values["spectral"] < 0.8 * before[voice]["spectral"]


def test_fresh_weights_are_of_the_seed_and_the_config(tiny_config: Path) -> None:
    first, again, other = fresh_codec(tiny_config, 1), fresh_codec(tiny_config, 1), fresh_codec(tiny_config, 2)
    assert_same(first, again)
    name = "decoder.0.transformer.layers.0.layer_scale_1.scale"
    assert torch.all(first.state_dict()[name] == 0.3)
    name = "decoder.0.transformer.layers.0.norm1.bias"
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def test_discriminators_have_no_say_at_first(corpus: SpeechCorpus) -> None:
    config = replace(SMALL, decoder_only=True, discriminator_steps=2)
    alone = trainer_of(load_codec(GOLDEN), config)
    against = trainer_of(load_codec(GOLDEN), replace(config, adversarial=True))
    for _ in range(3):
        alone.train(corpus)
        assert "discriminators" in against.train(corpus)
    # Step 2 is the first that could count, with a share of 0 still.
    assert_same(alone.network, against.network)
    alone.train(corpus)
    against.train(corpus)
    name = "decoder.0.input_proj.weight"
    assert not torch.equal(alone.network.state_dict()[name], against.network.state_dict()[name])


def test_discriminators_learn_and_point_at_the_truth() -> None:
    adversary = Adversary(1, torch.device("cpu"), windows=(256,), channels=8)
    generator = torch.Generator().manual_seed(2)
    target = 0.1 * torch.randn(2, 4096, generator=generator)
    made = 0.1 * torch.sin(torch.arange(4096) * 0.3).expand(2, -1).contiguous()
    losses = [adversary.train(made, target) for _ in range(40)]
    assert losses[0] == pytest.approx(2, abs=0.1)
    assert losses[-1] < 1.95

    def judged(samples: torch.Tensor) -> tuple[float, float]:
        """The verdict, and how far what the layers see is from what they see of the target."""
        with torch.no_grad():
            *features, verdict = adversary.discriminators[0](samples)
            *wanted, _ = adversary.discriminators[0](target)
        distances = [((a - b).abs().mean() / b.abs().mean()).item() for a, b in zip(features, wanted, strict=True)]
        return verdict.mean().item(), sum(distances)

    def moved(samples: torch.Tensor) -> torch.Tensor:
        gradient = adversary.gradient(samples, target)
        return samples - 1e-4 * gradient / gradient.square().mean().sqrt()

    # At the target itself there is nothing left to match, and the gradient is the verdict's alone.
    assert judged(moved(target))[0] > judged(target)[0]
    with torch.no_grad():
        named = dict(adversary.discriminators.named_parameters())
        named["0.layers.5.parametrizations.weight.original0"].zero_()
    # Of a judge that always says the same, what is left is the matching.
    assert judged(moved(made))[1] < judged(made)[1]


def test_the_gradient_of_discriminators_is_measured_by_the_others() -> None:
    config = replace(SMALL, steps=3000, adversarial=True, discriminator_steps=100)
    assert [config.adversarial_share_at(step) for step in (0, 100, 350, 600, 2999)] == [0, 0, 0.25, 0.5, 0.5]
    assert replace(config, adversarial=False).adversarial_share_at(2999) == 0


def test_learning_rate_rises_and_falls_in_a_line() -> None:
    config = TrainConfig(steps=1000, learning_rate=1.0)
    rates = [config.learning_rate_at(step) for step in range(1000)]
    assert rates[0] == 1 / 50
    assert rates[500] == 0.5
    assert np.allclose(np.diff(rates[50:]), -1e-3)
    assert rates[-1] == pytest.approx(1e-3)


def test_command_trains_exports_and_goes_on(corpus_folder: Path, tmp_path: Path) -> None:
    arguments = ["--corpus", str(corpus_folder), "--codec", str(GOLDEN), "--run", str(tmp_path / "run")]
    arguments += ["--steps", "3", "--clips", "2", "--frames", "4", "--held-out-steps", "2", "--decoder-only"]
    arguments += ["--voices", "high=1,low=2"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / LOG).read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    assert [set(line.get("held_out", ())) for line in lines] == [
        {"high", "low"},
        set(),
        {"high", "low"},
        {"high", "low"},
    ]
    assert all("spectral" in line and "profile" in line for line in lines[1:])

    trained = torch.load(tmp_path / "run" / STATE, weights_only=True)
    network = load_codec(GOLDEN)
    network.load_state_dict(trained["network"])
    codec = AudioCodec.from_pretrained(tmp_path / "out")
    samples = 0.1 * torch.sin(torch.arange(5 * FRAME) * 0.05)
    codes = AudioCodec.from_pretrained(GOLDEN).encode(samples)
    with torch.no_grad():
        assert torch.allclose(codec.decode(codes), network.decode(codes[None])[0], atol=1e-2)
    exported = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in exported.values()} == {torch.float16}
    assert exported.keys() == load_file(GOLDEN / "model.safetensors").keys()

    # A finished run has nothing left to do; it exports the same again.
    assert main([*arguments, "--out", str(tmp_path / "again")]) == 0
    assert main(["--run", str(tmp_path / "run"), "--out", str(tmp_path / "only"), "--export-only"]) == 0
    for name in ("again", "only"):
        other = load_file(tmp_path / name / "model.safetensors")
        assert all(torch.equal(tensor, other[key]) for key, tensor in exported.items())


def test_decoder_only_export_keeps_every_code(corpus: SpeechCorpus, tmp_path: Path) -> None:
    trainer = trainer_of(load_codec(GOLDEN), replace(SMALL, decoder_only=True))
    trainer.train(corpus)
    export_codec(trainer.network.state_dict(), GOLDEN / CONFIG, tmp_path)
    recording = corpus.held_out("low", 1)[0][0]
    # Half precision alone moves codes of the golden weights, which are float32; so it is half against half.
    export_codec(load_codec(GOLDEN).state_dict(), GOLDEN / CONFIG, tmp_path / "untrained")
    untrained = AudioCodec.from_pretrained(tmp_path / "untrained").encode(recording)
    assert torch.equal(AudioCodec.from_pretrained(tmp_path).encode(recording), untrained)


def test_a_run_that_was_another_is_not_gone_on_with(corpus: SpeechCorpus, tmp_path: Path) -> None:
    trainer_of(load_codec(GOLDEN), SMALL).save(tmp_path / STATE, corpus)
    state = torch.load(tmp_path / STATE, weights_only=True)
    with pytest.raises(CodecRunError, match=r"clips was 2") as error:
        trainer_of(load_codec(GOLDEN), replace(SMALL, clips=3)).resume(state)
    assert error.value.code == "codec_run_differs"


def test_requests_that_cannot_be_met_say_why(
    corpus_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*arguments: str) -> str:
        common = ["--run", str(tmp_path / "run"), "--out", str(tmp_path / "out")]
        assert main([*common, *arguments]) == 2
        return capsys.readouterr().err

    training = ["--corpus", str(corpus_folder), "--steps", "1"]
    assert "has not saved its state" in told("--export-only")
    assert "no voices" in told("--corpus", str(tmp_path), "--steps", "1", "--codec", str(GOLDEN))
    assert "needs a codec to keep" in told(*training, "--decoder-only", "--from-config", str(GOLDEN / CONFIG))
    assert "needs --before" in told(*training, "--decoder-only", "--joining", "high")
    assert "goes with --joining" in told(*training, "--before", str(GOLDEN))
    assert "knows other voices" in told(*training, "--joining", "high", "--from-config", str(GOLDEN / CONFIG))
    assert "'tall' is not among" in told(*training, "--joining", "high", "tall", "--codec", str(GOLDEN))
    assert "nowhere" in told(*training, "--codec", str(tmp_path / "nowhere"))
    assert "is not a file" in told(*training, "--from-config", str(tmp_path / "nowhere.json"))
    with pytest.raises(SystemExit):
        main(["--run", str(tmp_path), "--out", str(tmp_path)])
    assert "--corpus and --steps" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["high", "high=", "=1", "high=0", "high=-1", "high=inf", "high=nan", "high=1,,low=1"])
def test_voices_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(CodecRunError, match="voice=weight") as error:
        parse_voices(text)
    assert error.value.code == "codec_run_voices"


def test_voices_are_weights() -> None:
    assert parse_voices("high=1, low=2.5") == {"high": 1.0, "low": 2.5}


def test_quantizer_cannot_be_left_out_where_widths_differ(tmp_path: Path) -> None:
    network = load_codec(GOLDEN)
    quantizer = replace(network.config.quantizer, output_dim=32)
    network.config = replace(network.config, quantizer=quantizer)
    with pytest.raises(CodecRunError) as error:
        trainer_of(network, replace(SMALL, bypass_steps=1))
    assert error.value.code == "codec_run_widths"


def test_export_refuses_what_the_server_would_not_load(tmp_path: Path) -> None:
    tensors = load_codec(GOLDEN).state_dict()
    del tensors["decoder.0.input_proj.weight"]
    with pytest.raises(CheckpointError, match=r"decoder\.0\.input_proj"):
        export_codec(tensors, GOLDEN / CONFIG, tmp_path)


def test_export_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CodecRunError) as error:
        export_run(tmp_path, tmp_path / "out")
    assert error.value.code == "codec_run_no_state"
