"""Who may import whom: the client runs without torch, the engine without a web library, the protocol with msgspec."""

from __future__ import annotations

import subprocess
import sys

import pytest

WEB = ["aiohttp", "websockets", "soundfile", "soxr", "msgspec", "opuslib_next", "rich"]
COMPUTE = ["torch", "transformers", "triton", "safetensors", "tokenizers"]
SERVER = ["aiohttp", "soundfile", "soxr"]
CASES = [
    ("streamer_protocol", [*COMPUTE, *SERVER, "numpy", "asyncio", "websockets"]),
    ("streamer_client", [*COMPUTE, *SERVER]),
    ("streamer_client.twilio", [*COMPUTE, *SERVER]),
    ("streamer.cli", [*COMPUTE, *SERVER]),
    ("streamer", [*COMPUTE, *WEB]),
    ("streamer_kernels", [*WEB, "triton"]),
    ("streamer.models", WEB),
    ("streamer.codec", WEB),
    ("streamer.engine", WEB),
]


@pytest.mark.parametrize(("package", "forbidden"), CASES, ids=[c[0] for c in CASES])
def test_a_package_works_where_others_are_missing(package: str, forbidden: list[str]) -> None:
    # Each forbidden name is made impossible to import, as it is on a machine that does not have it.
    script = (
        "import sys\n"
        f"for name in {forbidden!r}: sys.modules[name] = None\n"
        f"import {package}\n"
        "if hasattr(sys.modules[" + repr(package) + "], '__all__'):\n"
        f"    [getattr({package}, name) for name in {package}.__all__] if {package!r} != 'streamer' else None\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_public_names_of_streamer_resolve() -> None:
    import streamer

    for name in streamer.__all__:
        assert getattr(streamer, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = streamer.nonsense
