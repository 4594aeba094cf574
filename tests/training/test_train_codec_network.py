"""The parts of codec training: the network is the server's codec, losses hear what they are for, clips are as told."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from streamer.codec import AudioCodec
from training.codec_checkpoint import CODEC, load_codec
from training.codec_data import CorpusError, SpeechCorpus
from training.codec_init import CodebookUsage, start_from_data
from training.codec_losses import SCALES, SpectralLoss, border_ratio, mel_bands, profile_distance
from training.codec_network import CodecNetwork

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "codec-nq8" / "codec"
FRAME = 1920


def sound(seconds: float, seed: int) -> torch.Tensor:
    """(1, N): a gliding hum in noise that comes and goes, of whole frames."""
    n = int(seconds * 24_000) // FRAME * FRAME
    time = np.arange(n) / 24_000
    rng = np.random.default_rng(seed)
    hum = np.sin(2 * np.pi * (120 + 40 * time) * time) + 0.4 * np.sin(2 * np.pi * 900 * time)
    noise = rng.standard_normal(n) * (np.sin(2 * np.pi * 3 * time) > 0.5)
    return torch.from_numpy((0.1 * hum + 0.03 * noise).astype(np.float32))[None]


def speak(folder: Path, voice: str, number: int, lengths: list[int], level: int) -> None:
    """A shard whose recordings are constant, so that samples tell where they came from."""
    path = folder / "speech" / voice / f"{number:05}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.concatenate([np.full(n, level + i, np.int16) for i, n in enumerate(lengths)])
    np.savez(path, samples=samples, lengths=np.array(lengths), texts=np.array(["a"] * len(lengths)))


@pytest.fixture(scope="module", params=[GOLDEN, CODEC], ids=["golden", "embedded"])
def pair(request: pytest.FixtureRequest) -> tuple[CodecNetwork, AudioCodec]:
    return load_codec(request.param), AudioCodec.from_pretrained(request.param)


@torch.no_grad()
def test_network_is_the_servers_codec(pair: tuple[CodecNetwork, AudioCodec]) -> None:
    network, codec = pair
    # Longer than the context, so that the sliding window is felt.
    samples = sound(4.0, 1)
    codes = network.encode(samples)[0]
    assert torch.equal(codes, codec.encode(samples[0]))
    assert len(codes.unique()) > 10
    for n_books in (8, 3):
        made = network.decode(codes[None, :, :n_books])[0]
        assert torch.allclose(made, codec.decode(codes[:, :n_books]), atol=1e-4)


@torch.no_grad()
def test_recordings_of_a_clip_are_encoded_as_if_alone(pair: tuple[CodecNetwork, AudioCodec]) -> None:
    network, codec = pair
    first, second = sound(0.8, 2), sound(1.2, 3)
    documents = torch.tensor([[0] * (first.shape[1] // FRAME) + [1] * (second.shape[1] // FRAME)])
    codes = network.encode(torch.cat((first, second), 1), documents)[0]
    assert torch.equal(codes, torch.cat((codec.encode(first[0]), codec.encode(second[0]))))


def test_left_out_codebooks_are_left_out() -> None:
    network = load_codec(GOLDEN)
    latents = torch.randn(2, 6, 48, generator=torch.Generator().manual_seed(4), requires_grad=True)
    quantized = network.quantizer(latents, torch.tensor([8, 3]))
    assert torch.allclose(quantized.vectors[0], network.quantizer.vectors(quantized.codes[:1])[0], atol=1e-5)
    assert torch.allclose(quantized.vectors[1], network.quantizer.vectors(quantized.codes[1:, :, :3])[0], atol=1e-5)
    (gradient,) = torch.autograd.grad(quantized.vectors.sum(), latents)
    assert gradient.abs().max() > 0


def test_start_from_data_uses_the_codebooks() -> None:
    generator = torch.Generator().manual_seed(5)
    latents = torch.randn(2000, 48, generator=generator) @ torch.randn(48, 48, generator=generator)
    quantizer = load_codec(GOLDEN).quantizer
    start_from_data(quantizer, latents, generator)
    with torch.no_grad():
        quantized = quantizer(latents[None])
        before = quantizer.input_proj(latents)
        wanted = before.var(0).sum()
        left = before - sum(
            stage.out_proj(stage.codebook(quantized.codes[0, :, k])) for k, stage in enumerate(quantizer.stages)
        )
    assert all(len(quantized.codes[..., book].unique()) > 0.9 * 64 for book in range(8))
    assert left.var(0).sum() < 0.5 * wanted


def test_only_dead_entries_move_and_to_where_vectors_are() -> None:
    quantizer = load_codec(GOLDEN).quantizer
    usage = CodebookUsage(quantizer)
    codes = torch.randint(1, 64, (1, 640, 8), generator=torch.Generator().manual_seed(6))
    before = [stage.codebook.weight.clone() for stage in quantizer.stages]
    points = tuple(torch.full((1, 9, 8), 7.0) + torch.arange(9)[:, None] * 1e-3 for _ in range(8))
    restarted = []
    for _ in range(200):
        usage.count(codes)
        restarted.append(usage.restart_dead(points, torch.Generator().manual_seed(7)))
    # Entry 0 of each codebook is never chosen: it dies, is put among the points, and dies again later.
    assert restarted[0] == 0
    assert 8 in restarted
    for stage, old in zip(quantizer.stages, before, strict=True):
        assert torch.equal(stage.codebook.weight[1:], old[1:])
        assert torch.allclose(stage.codebook.weight[0], torch.tensor(7.0), atol=0.02)


def test_spectral_loss_is_zero_for_the_same_and_grows_with_noise() -> None:
    loss, target = SpectralLoss(24_000), sound(1.0, 8)
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(9))
    for index in range(len(SCALES)):
        assert loss(target, target, [index]).item() == 0
        weak, strong = (loss(target + level * noise, target, [index]).item() for level in (0.003, 0.03))
        assert 0 < weak < strong
    both = loss(target + noise, target, [0, 3]).item()
    assert both == pytest.approx((loss(target + noise, target, [0]) + loss(target + noise, target, [3])).item() / 2)


def test_harmonic_loss_tells_a_low_voice_from_a_whisper_whatever_the_phases() -> None:
    generator = torch.Generator().manual_seed(3)
    loss = SpectralLoss(24_000)
    seconds = torch.arange(24_000) / 24_000

    def voice(pitch_hz: float) -> torch.Tensor:
        phases = 2 * torch.pi * torch.rand(13, generator=generator)
        waves = [torch.cos(2 * torch.pi * pitch_hz * k * seconds + phases[k]) for k in range(1, 13)]
        return 0.02 * torch.stack(waves).sum(0, keepdim=True)

    spectrum = torch.fft.rfft(torch.randn(1, 24_000, generator=generator))
    spectrum[:, 1100:] = 0
    noise = torch.fft.irfft(spectrum)
    low = voice(90)
    whisper = noise * low.std() / noise.std()
    assert loss.harmonic(low, low) == 0
    other_phases, other_pitch = loss.harmonic(voice(90), low), loss.harmonic(voice(95), low)
    assert 4 * other_phases < loss.harmonic(whisper, low)
    assert 4 * other_phases < other_pitch


@pytest.mark.parametrize(("window", "n_mels"), [(2048, 100), (512, 64)])
def test_mel_bands_cover_all_frequencies(window: int, n_mels: int) -> None:
    bands = mel_bands(24_000, window, n_mels)
    assert bands.shape == (n_mels, window // 2 + 1)
    assert torch.allclose(bands.sum(1), torch.ones(n_mels))
    assert (bands[:, 1:-1].sum(0) > 0).all()
    assert torch.all(bands.argmax(1).diff() >= 0)


def with_clicks(samples: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    clicked = samples.clone()
    clicked[0, places] += 0.2
    return clicked


def test_clicks_at_borders_are_measured_and_elsewhere_are_not() -> None:
    noise = 0.01 * torch.randn(1, 25 * FRAME, generator=torch.Generator().manual_seed(10))
    borders = torch.arange(FRAME, 25 * FRAME, FRAME)
    assert border_ratio(noise, FRAME) == pytest.approx(1, abs=0.4)
    # Of the six parts (1, 4, 1) of a click's energy, five lie on the two samples of a border.
    click = 0.2**2
    expected = 5 / 2 * click / (6 * 0.01**2 + 6 * click / FRAME)
    assert border_ratio(with_clicks(noise, borders), FRAME) == pytest.approx(expected, rel=0.1)
    assert border_ratio(with_clicks(noise, borders - 1), FRAME) == pytest.approx(expected, rel=0.1)
    assert border_ratio(with_clicks(noise, borders + 100), FRAME) < 1.2


def test_profile_tells_a_rhythm_of_patches_from_speech_without_one() -> None:
    target = sound(5.2, 11)
    generator = torch.Generator().manual_seed(12)
    n_patches = target.shape[1] // 240
    rhythmic = torch.arange(n_patches) * 240
    anywhere = rhythmic + torch.randint(1, 240, (n_patches,), generator=generator)
    assert profile_distance(target, target, 240).item() == 0
    at_borders = profile_distance(with_clicks(target, rhythmic), target, 240).item()
    spread = profile_distance(with_clicks(target, anywhere), target, 240).item()
    assert at_borders > 2 * spread


def test_clips_depend_on_the_draw_alone_and_leave_the_last_shard_out(tmp_path: Path) -> None:
    for number, level in enumerate((100, 200, 9000)):
        speak(tmp_path, "high", number, [5000, 30_000, 9000], level)
        speak(tmp_path, "low", number, [7000, 20_000, 40_000], 1000 + level)
    corpus = SpeechCorpus([tmp_path], FRAME, {"high": 3.0, "low": 1.0})
    clips = corpus.draw(random.Random("a"), 40, 12)
    again = SpeechCorpus([tmp_path], FRAME, {"high": 3.0, "low": 1.0}).draw(random.Random("a"), 40, 12)
    assert torch.equal(clips.samples, again.samples)
    assert clips.samples.shape == (40, 12 * FRAME)
    levels = (clips.samples * 32768).round().int()
    high, low = ((levels >= 100) & (levels < 300)).sum(), ((levels >= 1100) & (levels < 1300)).sum()
    assert high + low == (levels != 0).sum()
    assert high > low
    # One document is one recording: all its samples that are not silence have one value.
    for clip, documents in zip(levels.unflatten(1, (12, FRAME)), clips.documents, strict=True):
        for document in documents.unique():
            spoken = clip[documents == document]
            assert len(spoken[spoken != 0].unique()) <= 1
    (held, *_), n_held = corpus.held_out("low", 2), len(corpus.held_out("low", 2))
    assert n_held == 2
    # One frame of silence, 7000 samples up to a whole frame, two frames of silence.
    assert held.shape == (1, (1 + 4 + 2) * FRAME)
    assert torch.equal((held[0] * 32768).round().int().nonzero()[:, 0], torch.arange(FRAME, FRAME + 7000))


def test_shards_that_came_later_change_nothing(tmp_path: Path) -> None:
    for number in range(3):
        speak(tmp_path, "high", number, [9000], 100 * (number + 1))
    before = SpeechCorpus([tmp_path], FRAME)
    drawn = before.draw(random.Random(1), 2, 4).samples
    speak(tmp_path, "high", 3, [9000], 400)
    speak(tmp_path, "low", 0, [9000], 500)
    after = SpeechCorpus([tmp_path], FRAME, before.weights, before.n_shards)
    assert torch.equal(after.draw(random.Random(1), 2, 4).samples, drawn)
    assert torch.equal(after.held_out("high", 1)[0], before.held_out("high", 1)[0])


def test_a_corpus_may_lie_in_several_folders(tmp_path: Path) -> None:
    for number in range(2):
        speak(tmp_path / "a", "high", number, [9000], 100)
        speak(tmp_path / "b", "low", number, [9000], 1000)
    corpus = SpeechCorpus([tmp_path / "a", tmp_path / "b"], FRAME)
    assert corpus.weights == {"high": 1.0, "low": 1.0} and corpus.n_shards == {"high": 2, "low": 2}
    levels = (corpus.draw(random.Random(2), 20, 4).samples * 32768).round().int()
    assert set(levels.unique().tolist()) == {0, 100, 1000}


def test_a_corpus_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    def refused(code: str, match: str, weights: dict[str, float] | None = None) -> None:
        with pytest.raises(CorpusError, match=match) as error:
            SpeechCorpus([tmp_path], FRAME, weights)
        assert error.value.code == code

    refused("codec_corpus_empty", "no voices")
    speak(tmp_path, "high", 0, [9000], 100)
    refused("codec_corpus_voice", r"high: 1 shards in .*, expected at least 2")
    speak(tmp_path, "high", 1, [9000], 100)
    refused("codec_corpus_voice", r"nobody: 0 shards", {"high": 1.0, "nobody": 1.0})
    path = tmp_path / "speech" / "high" / "00000.npz"
    np.savez_compressed(path, samples=np.zeros(9000, np.int16), lengths=np.array([9000]))
    refused("codec_corpus_shard", r"00000\.npz.*compressed")
    np.savez(path, samples=np.zeros(9000, np.int16), lengths=np.array([8000]))
    refused("codec_corpus_shard", r"00000\.npz.*do not agree")
    np.savez(path, samples=np.zeros(9000, np.float32), lengths=np.array([9000]))
    refused("codec_corpus_shard", r"00000\.npz.*float32")
    path.write_bytes(b"no archive")
    refused("codec_corpus_shard", r"00000\.npz")
