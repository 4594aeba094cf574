"""``python -m bench.demo_seeds``: with which seeds does a recogniser hear the demo without a mistake?

The demo runs as a user runs it, once for each seed; whisper-base hears the file that it wrote (extra ``eval``).
"""

from __future__ import annotations

import argparse
import json
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import soundfile

from streamer.evaluation.judges import Recogniser
from streamer.evaluation.words import plain_words, word_errors

DEMO = Path(__file__).parent.parent / "clients" / "examples" / "demo.py"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one JSON document: by seed, how many words are misheard, and what is heard instead."""
    parser = argparse.ArgumentParser(prog="python -m bench.demo_seeds", description="Hear the demo with several seeds.")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(8)), help="(default: 0 to 7)")
    options = parser.parse_args(arguments)
    script = runpy.run_path(str(DEMO))["SCRIPT"]
    said = plain_words(script.replace("[S1]", "").replace("[S2]", ""))
    recogniser = Recogniser()
    errors: dict[int, int] = {}
    misheard: dict[int, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            heard = recogniser.words(*soundfile.read(demo(seed, Path(folder)), dtype="float32"))
            errors[seed] = word_errors(said, heard)
            if errors[seed]:
                misheard[seed] = " ".join(heard)
    flawless = [seed for seed, count in errors.items() if not count]
    print(json.dumps({"words": len(said), "errors": errors, "flawless": flawless, "misheard": misheard}, indent=1))
    return 0


def demo(seed: int, folder: Path) -> Path:
    """The file that a run of the demo writes; subprocess.CalledProcessError where it fails."""
    out = folder / f"{seed}.opus"
    subprocess.run([sys.executable, DEMO, "--seed", str(seed), "--out", out], check=True, stdout=subprocess.DEVNULL)
    return out


if __name__ == "__main__":
    sys.exit(main())
