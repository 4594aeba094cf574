"""Kernels run on the GPU where there is one, and in Triton's interpreter elsewhere."""

from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    # Triton looks at it once, when it is imported, which other packages do too.
    os.environ["TRITON_INTERPRET"] = "1"
