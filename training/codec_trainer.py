"""One optimisation step of the codec, its schedule, and the state that a stopped run goes on from."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from streamer.codec.config import PatchConfig
from training.codec_adversary import Adversary
from training.codec_data import Clips, SpeechCorpus
from training.codec_init import CodebookUsage, start_from_data
from training.codec_losses import SCALE_GROUPS, SCALES, SpectralLoss, border_ratio, profile_distance
from training.codec_network import CodecNetwork, Quantized

_WARM_UP_STEPS = 50
_PROFILE_WEIGHT, _HARMONIC_WEIGHT = 3.0, 1.0
_COMMITMENT_WEIGHT, _CODEBOOK_WEIGHT = 0.0625, 0.25
_KEEP_WEIGHT, _HEARD_ANEW_SHARE = 1.0, 0.25
_ALL_BOOKS_SHARE = 0.6
_DITHER = 2e-4
_START_BATCHES = 10
_RESTART_EVERY_STEPS, _RESTART_SHARE = 20, 0.8
_ADVERSARIAL_SHARE, _ADVERSARIAL_RISE_STEPS = 0.5, 500


class CodecRunError(ValueError):
    """A run that can't begin or go on as asked; ``code`` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """What shapes a run. The learning rate rises over 50 steps and falls in a line to 0.

    ``decoder_only``: encoder and quantizer stay as they are, so that codes keep their meaning. ``bypass_steps``: the
    quantizer is left out for so long, then set from the data. ``discriminator_steps``: for so long the
    discriminators of an ``adversarial`` run learn without a say; then their say rises over 500 steps.
    ``joining``: voices that the codec is to learn beside those that it knows. The quantizer stays; the encoder learns
    the new ones and is held to what it makes of the others, whose codes the decoder goes on to hear as they were.
    With both, the encoder has learned them already.
    """

    steps: int
    learning_rate: float = 1e-3
    clips: int = 8
    frames: int = 24
    decoder_only: bool = False
    bypass_steps: int = 0
    adversarial: bool = False
    discriminator_steps: int = 500
    joining: tuple[str, ...] = ()
    seed: int = 0

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step, from 0 on."""
        return self.learning_rate * min(1.0, (step + 1) / _WARM_UP_STEPS) * (1 - step / self.steps)

    def adversarial_share_at(self, step: int) -> float:
        """Size of the discriminators' gradient by that of the other losses, at the waveform."""
        risen = (step - self.discriminator_steps) / _ADVERSARIAL_RISE_STEPS
        return _ADVERSARIAL_SHARE * min(1.0, max(0.0, risen)) if self.adversarial else 0.0


class CodecTrainer:
    """Network, optimisers, codebook usage and the number of steps taken."""

    def __init__(
        self,
        network: CodecNetwork,
        config: TrainConfig,
        device: torch.device,
        *,
        before: CodecNetwork | None = None,
        compiled: bool = False,
    ) -> None:
        """``before``: the codec of the known voices' codes, where there are ``joining`` ones; None: ``network``."""
        quantizer = network.config.quantizer
        if config.bypass_steps and quantizer.input_dim != quantizer.output_dim:
            raise CodecRunError(
                "codec_run_widths",
                f"the quantizer takes {quantizer.input_dim} channels and gives {quantizer.output_dim}: it can only be "
                "left out at first where they are as many",
            )
        self.network = network.to(device)
        self.config = config
        self.device = device
        self.step = 0
        last = network.config.decoder[-1]
        self._patch_samples = last.size if isinstance(last, PatchConfig) else network.config.frame_samples
        self._spectral = SpectralLoss(network.config.sampling_rate).to(device)
        self.usage = CodebookUsage(network.quantizer)
        self._adversary = Adversary(config.seed, device) if config.adversarial else None
        if config.decoder_only:
            network.requires_grad_(False)
            network.decoder.requires_grad_(True)
        self._before = None
        if config.joining:
            self._before = (before or copy.deepcopy(network)).requires_grad_(False).to(device)
            network.quantizer.requires_grad_(False)
        self._trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
        matrices = {n: p for n, p in self._trained.items() if p.ndim == 2 and ".transformer.layers." in n}
        others = [p for name, p in self._trained.items() if name not in matrices]
        self._optimizers: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(list(matrices.values()), weight_decay=0.02, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
        )
        self._latents = torch.compile(network.latents) if compiled else network.latents
        self._waveform = torch.compile(network.waveform) if compiled else network.waveform

    def train(self, corpus: SpeechCorpus) -> dict[str, float]:
        """One optimisation step on a batch that depends on seed and step alone; the losses."""
        config, rng = self.config, self._rng("step")
        if self.step == config.bypass_steps and config.bypass_steps:
            self._start_quantizer(corpus)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate_at(self.step)
            optimizer.zero_grad()
        clips = self._draw(corpus, "batch")
        vectors, quantizer_loss, report = self._quantize(clips, rng, list(corpus.weights))
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            made = self._waveform(vectors)
        gradient = self._waveform_gradient(made.detach(), clips.samples, rng, report)
        if quantizer_loss is None:
            made.backward(gradient)
        else:
            torch.autograd.backward((made, quantizer_loss), (gradient, torch.ones_like(quantizer_loss)))
        torch.nn.utils.clip_grad_norm_(self._trained.values(), 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
        self.step += 1
        return report

    def _quantize(
        self, clips: Clips, rng: random.Random, voices: Sequence[str]
    ) -> tuple[torch.Tensor, torch.Tensor | None, dict[str, float]]:
        """What the decoder gets, the losses on the way there, and what is to be reported of them."""
        config, network = self.config, self.network
        if config.decoder_only:
            # In float32, as when the corpus is encoded: rounding would move codes.
            codes = network.encode(clips.samples, clips.documents)
            if self._before is not None:
                codes_before = self._before.encode(clips.samples, clips.documents)
                codes = torch.where(self._heard_anew(clips, rng, voices)[..., None], codes, codes_before)
            return network.quantizer.vectors(codes).detach(), None, {}
        noise = torch.randn(clips.samples.shape, generator=self._generator("dither")).to(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            latents = self._latents(clips.samples + _DITHER * noise, clips.documents)
        if self.step < config.bypass_steps:
            return latents, None, {}
        n_all = network.config.n_codebooks
        n_books = [n_all if rng.random() < _ALL_BOOKS_SHARE else rng.randint(1, n_all) for _ in range(config.clips)]
        quantized = network.quantizer(latents, torch.tensor(n_books, device=self.device))
        if self._before is not None:
            return self._join(self._before, clips, latents, quantized, rng, voices)
        self.usage.count(quantized.codes)
        n_restarted = 0
        if self.step % _RESTART_EVERY_STEPS == 0 and self.step < _RESTART_SHARE * config.steps:
            n_restarted = self.usage.restart_dead(quantized.encoded, self._generator("restart"))
        loss = _COMMITMENT_WEIGHT * quantized.commitment + _CODEBOOK_WEIGHT * quantized.codebook
        report = {"commitment": quantized.commitment.item(), "restarted": float(n_restarted)}
        return quantized.vectors, loss, report

    def _join(
        self,
        before: CodecNetwork,
        clips: Clips,
        latents: torch.Tensor,
        quantized: Quantized,
        rng: random.Random,
        voices: Sequence[str],
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, float]]:
        """As :meth:`_quantize`, for an encoder that learns its joining voices."""
        with torch.no_grad():
            latents_before = before.latents(clips.samples, clips.documents)
            codes_before = before.quantizer(latents_before).codes
            vectors_before = before.quantizer.vectors(codes_before)
        known = ~self._is_joining(clips, voices)
        moved = (latents - latents_before)[known].square().sum() / latents_before[known].square().sum().clamp_min(1e-6)
        same = (quantized.codes == codes_before)[known][:, 0].float().sum() / known.sum().clamp_min(1)
        report = {"commitment": quantized.commitment.item(), "moved": moved.item(), "same_codes": same.item()}
        loss = _COMMITMENT_WEIGHT * quantized.commitment + _KEEP_WEIGHT * moved
        anew = self._heard_anew(clips, rng, voices)
        return torch.where(anew[..., None], quantized.vectors, vectors_before), loss, report

    def _is_joining(self, clips: Clips, voices: Sequence[str]) -> torch.Tensor:
        """(B, frames) bool: the voice that speaks is one that joins."""
        return torch.tensor([voice in self.config.joining for voice in voices], device=self.device)[clips.voices]

    def _heard_anew(self, clips: Clips, rng: random.Random, voices: Sequence[str]) -> torch.Tensor:
        """(B, frames) bool: the decoder hears the codes of the encoder as it is now, not those that it gave before.

        Of known voices too in some clips: their speech may also come in by the new encoder, as a reference.
        """
        clips_anew = [rng.random() < _HEARD_ANEW_SHARE for _ in range(len(clips.samples))]
        return self._is_joining(clips, voices) | torch.tensor(clips_anew, device=self.device)[:, None]

    def _waveform_gradient(
        self, made: torch.Tensor, target: torch.Tensor, rng: random.Random, report: dict[str, float]
    ) -> torch.Tensor:
        """The gradient of all losses of the waveform at ``made`` (B, N), and their values into ``report``."""
        made.requires_grad_()
        spectral = self._spectral(made, target, [rng.choice(group) for group in SCALE_GROUPS])
        profile = profile_distance(made, target, self._patch_samples)
        harmonic = self._spectral.harmonic(made, target)
        loss = spectral + _PROFILE_WEIGHT * profile + _HARMONIC_WEIGHT * harmonic
        (gradient,) = torch.autograd.grad(loss, made)
        report |= {"spectral": spectral.item(), "profile": profile.item(), "harmonic": harmonic.item()}
        if self._adversary is not None:
            report["discriminators"] = self._adversary.train(made, target)
            if share := self.config.adversarial_share_at(self.step):
                other = self._adversary.gradient(made, target)
                # Measured by the others' gradient, so that no state of the discriminators can outweigh them.
                gradient = gradient + other * (share * gradient.norm() / other.norm().clamp_min(1e-12))
        return gradient

    def _start_quantizer(self, corpus: SpeechCorpus) -> None:
        with torch.no_grad():
            clips = [self._draw(corpus, f"start {index}") for index in range(_START_BATCHES)]
            latents = torch.cat([self.network.latents(c.samples, c.documents).flatten(0, 1) for c in clips])
        start_from_data(self.network.quantizer, latents, self._generator("start"))

    @torch.no_grad()
    def measure(self, corpus: SpeechCorpus, n_recordings: int) -> dict[str, dict[str, float]]:
        """By voice, on its first held-out recordings, in float32 and with all codebooks.

        ``spectral``: mean over all scales; ``profile`` and ``harmonic``: as in training; ``frame_ratio`` and
        ``patch_ratio``: energy of the second difference at the borders by its mean, of which the recordings' own is
        ``*_ratio_target``.
        """
        frame_samples = self.network.config.frame_samples
        report = {}
        for voice in corpus.weights:
            recordings = [recording.to(self.device) for recording in corpus.held_out(voice, n_recordings)]
            made = torch.cat([self.network.decode(self.network.encode(recording)) for recording in recordings], 1)
            target = torch.cat(recordings, 1)
            report[voice] = {
                "spectral": self._spectral(made, target, range(len(SCALES))).item(),
                "profile": profile_distance(made, target, self._patch_samples).item(),
                "harmonic": self._spectral.harmonic(made, target).item(),
                "frame_ratio": border_ratio(made, frame_samples),
                "frame_ratio_target": border_ratio(target, frame_samples),
                "patch_ratio": border_ratio(made, self._patch_samples),
                "patch_ratio_target": border_ratio(target, self._patch_samples),
            }
        return report

    def save(self, path: Path, corpus: SpeechCorpus) -> None:
        """Put everything that the next step depends on in place whole."""
        state = {
            "config": asdict(self.config),
            "step": self.step,
            "weights": corpus.weights,
            "n_shards": corpus.n_shards,
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "usage": self.usage.usage,
            "adversary": None if self._adversary is None else self._adversary.state_dict(),
            "before": None if self._before is None else self._before.state_dict(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.rename(path)

    def resume(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`save` wrote; CodecRunError where that run was another one."""
        differing = [name for name, value in asdict(self.config).items() if state["config"].get(name) != value]
        if differing:
            told = ", ".join(f"{name} was {state['config'].get(name)!r}" for name in differing)
            raise CodecRunError(
                "codec_run_differs", f"the run began otherwise ({told}); ask for the same, or a new run"
            )
        self.network.load_state_dict(state["network"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.usage.usage.copy_(state["usage"])
        if self._adversary is not None:
            self._adversary.load_state_dict(state["adversary"])
        if self._before is not None:
            self._before.load_state_dict(state["before"])
        self.step = state["step"]

    def _draw(self, corpus: SpeechCorpus, purpose: str) -> Clips:
        return corpus.draw(self._rng(purpose), self.config.clips, self.config.frames).to(self.device)

    def _rng(self, purpose: str) -> random.Random:
        return random.Random(f"{purpose}:{self.config.seed}:{self.step}")

    def _generator(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(self._rng(purpose).getrandbits(62))
