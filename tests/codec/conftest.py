from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from streamer.codec import AudioCodec

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "data" / "golden" / "codec-nq8"
EMBEDDED = ROOT / "streamer" / "assets" / "codec"
VOICES = ROOT / "tests" / "data" / "voices"


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    return GOLDEN / "codec"


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """The publishers' own results; ``codes`` (8, 63), all the others one-dimensional."""
    with np.load(GOLDEN / "golden.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def golden_codes(golden: dict[str, np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(golden["codes"].T.copy())


@pytest.fixture(scope="session")
def codec(golden_folder: Path) -> AudioCodec:
    return AudioCodec.from_pretrained(golden_folder)


@pytest.fixture(scope="session")
def embedded_folder() -> Path:
    return EMBEDDED


@pytest.fixture(scope="session")
def voices_folder() -> Path:
    return VOICES


@pytest.fixture(scope="session")
def embedded_codec() -> AudioCodec:
    return AudioCodec.from_pretrained(EMBEDDED)
