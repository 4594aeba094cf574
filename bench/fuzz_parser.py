"""``python -m bench.fuzz_parser --seconds 60``: coverage-guided fuzzing of the protocol's two ends with atheris.

Atheris is no dependency: ``pip install atheris``.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path


def main(argv: list[str] | None = None) -> None:
    """Fuzz for a while; libFuzzer reports, and ends the process with its own status at the first finding."""
    parser = argparse.ArgumentParser(description="fuzz the protocol's parser and state machines")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1, help="of the random mutations; 0 takes another each time")
    arguments = parser.parse_args(argv)
    try:
        atheris = importlib.import_module("atheris")
    except ModuleNotFoundError:
        raise SystemExit("atheris is missing: pip install atheris (Linux or macOS)") from None
    # Only what is imported here tells the fuzzer which way it took.
    with atheris.instrument_imports(include=["streamer_protocol"]):
        checks = importlib.import_module("bench.fuzz_checks")
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(checks.seeds()):
            (corpus / str(number)).write_bytes(seed)
        dictionary = Path(folder) / "words"
        dictionary.write_text("\n".join(checks.words()))
        options = [f"-max_total_time={arguments.seconds}", f"-seed={arguments.seed}", "-max_len=8192"]
        options += [f"-dict={dictionary}", "-print_final_stats=1", str(corpus)]
        atheris.Setup([sys.argv[0], *options], checks.check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
