"""What holds for all tests: where kernels run, and that no test's server outlives it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
import torch

# Kernels run on the GPU where there is one, and in Triton's interpreter elsewhere.
if not torch.cuda.is_available():
    # Triton looks at it once, when it is imported, which other packages do too.
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True)
def _servers_are_forgotten() -> Iterator[None]:
    """aiohttp keeps the handlers of the last thousand applications that had middlewares, and with them whole models."""
    yield
    web_app = sys.modules.get("aiohttp.web_app")
    if web_app is not None:
        web_app._cached_build_middleware.cache_clear()
