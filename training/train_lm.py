"""``python -m training.train_lm --corpus DIR --run DIR --steps N | --minutes M``: trains the delay language model.

Starts from a published checkpoint, or from ``<run>/state.pt`` where there is one. Every batch depends on the seed and
the step alone, so a run that was stopped ends as if it had not been. Losses, also those of held-out recordings, go to
``<run>/log.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from streamer.models import DelayConfig, load_tokenizer
from training.network import DelayNetwork, Forward
from training.packing import Batch, DrawsSamples, draw_batch
from training.progress import progress_bar
from training.samples import CodedCorpus, SampleMaker
from training.words import SOUNDS_PER_WORD, SoundTable

MODEL = Path(__file__).parent.parent / "streamer" / "assets" / "model"
STATE, LOG = "state.pt", "log.jsonl"
_WARM_UP_STEPS = 40
_FLAT_SHARE, _FINAL_SHARE = 0.25, 0.02
_TEXT_WEIGHT, _SOUND_WEIGHT, _REFERENCE_WEIGHT = 0.3, 0.3, 0.3
# Once a voice speaks, it can be had from its own last frames; only at the beginning must its reference be found. And
# only at the end of a question for yes or no does it rise.
_HEAVY_WEIGHT = 3.0
# The alignment head is drawn hard to where words are thought to be at first, then left to find out better.
_GUIDE_WEIGHT, _LATE_GUIDE_WEIGHT, _GUIDED_SHARE = 0.3, 0.03, 0.4
_HELD_OUT_STEPS, _HELD_OUT_BATCHES = 200, 2
_UNTIMED_STEPS, _TIMED_STEPS = 10, 20


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """What shapes a run. The learning rate is flat for the first quarter of ``steps``, then falls in a line to 2 %.

    ``books_per_step``: heads that a step trains, codebook 0 always among them; the rest have their turn at random.
    """

    steps: int
    learning_rate: float = 1.5e-3
    sequences: int = 5
    rows: int = 1024
    books_per_step: int = 5
    seed: int = 0

    def guide_weight_at(self, step: int) -> float:
        """How much the alignment head's loss counts at a step."""
        return _GUIDE_WEIGHT if step < _GUIDED_SHARE * self.steps else _LATE_GUIDE_WEIGHT

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step, from 0 on."""
        share = step / self.steps
        fall = 1.0 if share < _FLAT_SHARE else 1 - (share - _FLAT_SHARE) / (1 - _FLAT_SHARE)
        return self.learning_rate * min(1.0, (step + 1) / _WARM_UP_STEPS) * max(_FINAL_SHARE, fall)


class Trainer:
    """Network, optimisers and the number of steps taken.

    ``n_sounds``: how many phonemes there are, and one for none. ``compiled``: through torch.compile, which takes a
    minute or two at first and makes steps about half as long again without it.
    """

    def __init__(
        self, network: DelayNetwork, config: TrainConfig, n_sounds: int, device: torch.device, compiled: bool = False
    ) -> None:
        self.network = network.to(device)
        torch.manual_seed(config.seed)
        self.sound_head = nn.Linear(network.config.language.hidden_size, SOUNDS_PER_WORD * n_sounds).to(device)
        self.config = config
        self.device = device
        self.step = 0
        self._forward = torch.compile(self.network) if compiled else self.network
        matrices = [p for p in network.language_model.layers.parameters() if p.ndim == 2]
        chosen = set(map(id, matrices))
        others = [p for p in (*network.parameters(), *self.sound_head.parameters()) if id(p) not in chosen]
        self._optimizers: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(matrices, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw", ns_steps=5),
            torch.optim.AdamW(others, betas=(0.9, 0.97), weight_decay=0.01, fused=True),
        )
        # The first codebooks carry the words, the last ones detail that can hardly be foreseen.
        weights = torch.linspace(2.0, 0.5, network.config.n_vq)
        self._book_weights = (weights / weights.mean()).to(device)

    def train(self, batch: Batch, sounds: torch.Tensor) -> dict[str, float]:
        """One optimisation step; the losses in nats: ``text``, ``sound``, ``reference``, ``guide``, and ``code<k>`` of
        the codebooks that had their turn. ``sounds``: (words, SOUNDS_PER_WORD), what the batch's are rows of."""
        rate = self.config.learning_rate_at(self.step)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
        n_vq = self.network.config.n_vq
        rng = random.Random(f"books:{self.config.seed}:{self.step}")
        others = rng.sample(range(1, n_vq), min(self.config.books_per_step, n_vq) - 1)
        books = [0, *sorted(others)]
        batch = batch.to(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            forward = self._forward(batch.rows, batch.positions, batch.documents)
            text, codes = code_losses(self.network, forward, batch, books, _HEAVY_WEIGHT)
            reference = reference_loss(forward, batch, self.network.config.audio_user_slot_token_id)
            sound = sound_loss(self.sound_head, forward, batch, sounds.to(self.device))
            guide = guide_loss(forward, batch)
        weights = self._book_weights[books]
        loss = (codes * weights).sum() / weights.sum() + _TEXT_WEIGHT * text + _SOUND_WEIGHT * sound
        loss = loss + _REFERENCE_WEIGHT * reference + self.config.guide_weight_at(self.step) * guide
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
        self.step += 1
        named = {f"code{book}": value for book, value in zip(books, codes.tolist(), strict=True)}
        report = {"text": text.item(), "sound": sound.item(), "reference": reference.item(), "guide": guide.item()}
        return report | named

    @torch.no_grad()
    def measure(self, batches: Sequence[Batch], name: str) -> dict[str, float]:
        """Mean losses, in nats, without learning from it: ``<name><k>`` of every codebook, all rows alike."""
        books = range(self.network.config.n_vq)
        total = torch.zeros(len(books))
        for batch in batches:
            there = batch.to(self.device)
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                forward = self._forward(there.rows, there.positions, there.documents)
                total += code_losses(self.network, forward, there, books)[1].cpu()
        return {f"{name}{book}": value for book, value in enumerate((total / len(batches)).tolist())}

    def draw(self, maker: DrawsSamples, name: str) -> Batch:
        """The batch of a name, always the same, as large as a step's."""
        c = self.network.config
        empty_row = torch.tensor([c.pad_token_id, *[c.audio_pad_code] * c.n_vq])
        return draw_batch(maker, random.Random(name), self.config.sequences, self.config.rows, empty_row)

    def save(self, path: Path) -> None:
        """Put everything that the next step depends on in place whole."""
        state = {
            "config": asdict(self.config),
            "step": self.step,
            "network": self.network.state_dict(),
            "sound_head": self.sound_head.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.rename(path)

    def resume(self, path: Path) -> None:
        """Take over what :meth:`save` wrote."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.sound_head.load_state_dict(state["sound_head"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = state["step"]


def code_losses(
    network: DelayNetwork, forward: Forward, batch: Batch, books: Sequence[int], heavy_weight: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropy of the learned cells: of the text ids, (), and of each of ``books``, (len(books),), in which
    the heavy rows count ``heavy_weight`` times."""
    # Row r predicts row r + 1; what a sequence begins with is never learned.
    wanted = batch.learned[:, 1:].any(-1).nonzero(as_tuple=True)
    hidden = forward.hidden[wanted]
    targets, learned = batch.targets[:, 1:][wanted], batch.learned[:, 1:][wanted]
    text = network.lm_heads[0](hidden).float()
    text_loss = F.cross_entropy(text[learned[:, 0]], targets[learned[:, 0], 0])
    columns = [1 + book for book in books]
    logits = network.audio_logits(hidden, books).float()
    each = F.cross_entropy(logits.flatten(0, 1), targets[:, columns].flatten(), reduction="none")
    weights = learned[:, columns] * torch.where(batch.heavy[:, 1:][wanted], heavy_weight, 1.0)[:, None]
    return text_loss, (each.view(weights.shape) * weights).sum(0) / weights.sum(0).clamp_min(1)


def sound_loss(head: nn.Linear, forward: Forward, batch: Batch, sounds: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the phonemes of words, and of whether yes or no is asked for, at their last bytes."""
    at = (batch.sounds >= 0).nonzero(as_tuple=True)
    logits = head(forward.words[at]).float().view(-1, head.out_features // SOUNDS_PER_WORD)
    return F.cross_entropy(logits, sounds[batch.sounds[at]].flatten())


def reference_loss(forward: Forward, batch: Batch, reference_id: int) -> torch.Tensor:
    """Mean of minus the logarithm of how much of the reference head's attention, from the script's text, is on the
    reference of who says it. ``reference_id``: the text id of a reference's rows."""
    is_reference = batch.rows[..., 0] == reference_id
    at = (batch.speakers.gt(0) & ~is_reference).nonzero(as_tuple=True)
    log_attention = forward.reference_scores[at].float().log_softmax(-1)
    # Other documents' references weigh nothing: a row cannot look there.
    right = is_reference[at[0]] & (batch.speakers[at[0]] == batch.speakers[at][:, None])
    return -log_attention.masked_fill(~right, -torch.inf).logsumexp(-1).sum() / max(1, len(right))


def guide_loss(forward: Forward, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy of the alignment head's attention against the words that are thought to be said."""
    spoken = batch.guide_weights.sum(-1).gt(0).nonzero(as_tuple=True)
    log_attention = forward.alignment_scores[spoken].float().log_softmax(-1).gather(-1, batch.guide[spoken])
    # A minus infinity with no weight must not become NaN.
    weights = batch.guide_weights[spoken]
    return -(log_attention.masked_fill(weights == 0, 0.0) * weights).sum(-1).mean()


def load_network(folder: Path) -> DelayNetwork:
    """The network of a published checkpoint, in float32."""
    network = DelayNetwork(DelayConfig.from_folder(folder))
    network.load_state_dict(load_file(folder / "model.safetensors"))
    return network.float()


def main(arguments: Sequence[str] | None = None) -> int:
    """Train until the run has its steps."""
    parser = _parser()
    options = parser.parse_args(arguments)
    for name in ("steps", "sequences", "rows", "books", "questions"):
        if (value := getattr(options, name)) < 1:
            parser.error(f"--{name} is {value}, expected at least 1")
    config = TrainConfig(
        options.steps, options.learning_rate, options.sequences, options.rows, options.books, options.seed
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = load_network(options.model)
    corpus = CodedCorpus(options.corpus, network.config.n_vq, questions=options.questions)
    held_out = CodedCorpus(options.corpus, network.config.n_vq, held_out=True)
    table = SoundTable.of_corpus(options.corpus, corpus.words() | held_out.words())
    trainer = Trainer(network, config, table.n_sounds, device, compiled=options.compile)
    state_path = options.run / STATE
    if state_path.exists():
        trainer.resume(state_path)
        print(f"{state_path}: goes on from step {trainer.step}", flush=True)
    print(f"{corpus.n_frames / 12.5 / 3600:.1f} h of speech, voices {', '.join(corpus.voices)}", flush=True)
    tokenizer = load_tokenizer(options.model)
    makers = [SampleMaker(tokenizer, network.config, c, table) for c in (corpus, held_out)]
    run(trainer, makers[0], makers[1], table.sounds, options.run, options.save_minutes * 60, options.minutes)
    return 0


def run(
    trainer: Trainer,
    maker: DrawsSamples,
    held_out: DrawsSamples,
    sounds: torch.Tensor,
    folder: Path,
    save_seconds: float,
    minutes: float | None = None,
) -> float:
    """All steps that are left, with a line of ``log.jsonl`` for each and a state saved now and then; returns rows/s,
    the first steps apart, which compile.

    With ``minutes`` the number of steps is what fits into that time, as the first few show: for a machine on loan.
    """
    config = trainer.config
    timed_from = min(trainer.step + _UNTIMED_STEPS, config.steps - 1)
    unseen, seen = ([trainer.draw(m, f"held out:{i}") for i in range(_HELD_OUT_BATCHES)] for m in (held_out, maker))
    folder.mkdir(parents=True, exist_ok=True)
    began = saved = timed_at = time.monotonic()
    n_rows, smooth, rate = 0, 0.0, 0.0
    with (folder / LOG).open("a", encoding="utf-8") as log, progress_bar("steps", config.steps, "steps") as bar:
        bar.advance(trainer.step)
        while trainer.step < trainer.config.steps:
            if trainer.step == timed_from:
                n_rows, timed_at = 0, time.monotonic()
            if minutes and trainer.step == timed_from + _TIMED_STEPS:
                seconds_each = (time.monotonic() - timed_at) / _TIMED_STEPS
                fitting = int((minutes * 60 - (time.monotonic() - began)) / seconds_each)
                trainer.config = replace(config, steps=trainer.step + max(1, fitting))
                bar.aim(trainer.config.steps)
            batch = trainer.draw(maker, f"batch:{config.seed}:{trainer.step}")
            report = trainer.train(batch, sounds)
            if trainer.step % _HELD_OUT_STEPS == 0 or trainer.step == trainer.config.steps:
                # What lies between the two is learned by heart.
                report |= trainer.measure(unseen, "held_out") | trainer.measure(seen, "seen")
            n_rows += batch.n_rows
            smooth = report["code0"] if not smooth else 0.98 * smooth + 0.02 * report["code0"]
            log.write(json.dumps({"step": trainer.step, **{k: round(v, 4) for k, v in report.items()}}) + "\n")
            rate = n_rows / (time.monotonic() - timed_at)
            bar.advance(1, f"codebook 0: {smooth:.3f} nats, {rate:.0f} rows/s")
            if time.monotonic() - saved > save_seconds:
                saved = time.monotonic()
                trainer.save(folder / STATE)
                log.flush()
    trainer.save(folder / STATE)
    return rate


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.train_lm", description="Train the language model.")
    parser.add_argument("--corpus", type=Path, required=True, metavar="DIR", help="folder with codes")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="where state and log go")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int, default=1_000_000, help="of the whole run, which shapes its schedule")
    length.add_argument("--minutes", type=float, help="as many steps as fit into this time, from now on")
    parser.add_argument(
        "--model", type=Path, default=MODEL, help="checkpoint to start from (default: the embedded one)"
    )
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--sequences", type=int, default=5, help="sequences a step")
    parser.add_argument("--rows", type=int, default=1024, help="rows of a sequence")
    parser.add_argument("--books", type=int, default=5, help="codebook heads trained a step")
    parser.add_argument(
        "--questions", type=int, default=1, metavar="N", help="draw yes/no questions N times as often as the rest"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="another one to go on from a run's checkpoint: the same draws its samples again",
    )
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="torch.compile")
    parser.add_argument("--save-minutes", type=float, default=3.0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
