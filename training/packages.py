"""Where an installed package keeps its files."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def package_folder(module: str, distribution: str) -> Path:
    """Folder of a package; ModuleNotFoundError says what to install where it is missing."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{module} is not installed; this command needs: pip install {distribution}")
    return Path(next(iter(spec.submodule_search_locations)))
