"""``python -m training.encode --corpus DIR``: the corpus's speech as codes, by the codec that the server loads.

``<corpus>/codes/<voice>/<number>.npz`` has ``codes`` (int16, all utterances joined, (frames, n_codebooks)), ``lengths``
(frames of each) and ``texts``. Shards that exist are kept. Each utterance is encoded alone, with one frame of silence
before it and two after, which become the pause between turns.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from streamer.codec import AudioCodec
from training.progress import progress_bar

CODEC = Path(__file__).parent.parent / "streamer" / "assets" / "codec"
LEAD_FRAMES, TAIL_FRAMES = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Encode every shard of speech that has no codes yet."""
    options = _parser().parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    codec = AudioCodec.from_pretrained(options.codec, device=device)
    shards = sorted((options.corpus / "speech").glob("*/?????.npz"))
    with progress_bar("codes", len(shards), "shards") as bar:
        for shard in shards:
            codes_path = options.corpus / "codes" / shard.parent.name / shard.name
            if not codes_path.exists():
                encode_shard(codec, shard, codes_path)
            bar.advance(1)
    return 0


def encode_shard(codec: AudioCodec, speech_path: Path, codes_path: Path) -> None:
    """Encode one shard and put its codes in place whole."""
    with np.load(speech_path) as shard:
        samples, lengths, texts = shard["samples"], shard["lengths"], shard["texts"]
    utterances = np.split(samples, np.cumsum(lengths)[:-1])
    codes = [encode_utterance(codec, u.astype(np.float32) / 32768) for u in utterances]
    codes_path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = codes_path.with_suffix(".part")
    with unfinished.open("wb") as file:
        np.savez(file, codes=np.concatenate(codes), lengths=np.array([len(c) for c in codes]), texts=texts)
    unfinished.rename(codes_path)


def encode_utterance(codec: AudioCodec, samples: np.ndarray) -> np.ndarray:
    """(samples,) float32 -> (frames, n_codebooks) int16, the silence at both ends included."""
    frame = codec.config.frame_samples
    padded = np.pad(samples, (LEAD_FRAMES * frame, TAIL_FRAMES * frame))
    return codec.encode(padded, pad_tail=True).to("cpu", torch.int16).numpy()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.encode", description="Encode the corpus.")
    parser.add_argument("--corpus", type=Path, required=True, metavar="DIR", help="folder of training.corpus")
    parser.add_argument("--codec", type=Path, default=CODEC, help="codec checkpoint (default: the embedded one)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
