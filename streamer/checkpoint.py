"""Reading published checkpoints: a local folder or a hub id, safetensors in one file or in shards.

Everything that can be wrong with a checkpoint is a :class:`CheckpointError` that names the file, the key
or the tensor, so that the command line can say it in one line.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or not of the expected architecture."""


def resolve_checkpoint(path_or_hub_id: str | Path) -> Path:
    """Folder of a checkpoint; a hub id (``owner/name``) is downloaded to the hub's cache first."""
    name = str(path_or_hub_id)
    try:
        folder = Path(path_or_hub_id).expanduser()
        is_dir, exists = folder.is_dir(), folder.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{name[:80]}: not a path ({error})") from error
    if is_dir:
        return folder
    if exists:
        raise CheckpointError(f"{name}: a checkpoint is a folder, this is a file")
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(f"{name}: no such folder")
    # Imported here because a local checkpoint needs no hub client.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{name}: neither a local folder nor a model the hub gave us ({reason})") from error


def read_config(folder: Path, model_type: str) -> dict[str, Any]:
    """The checkpoint's ``config.json``; an error unless its ``model_type`` is the given one."""
    path = folder / "config.json"
    config = _read_json(path)
    found = config.get("model_type")
    if found != model_type:
        raise CheckpointError(f"{path}: model_type is {found!r}, expected {model_type!r}")
    return config


def require(config: Mapping[str, Any], key: str, kind: type, where: str = "config.json") -> Any:
    """A field of a config, checked for presence and type (an int passes where a float is wanted)."""
    if key not in config:
        raise CheckpointError(f"{where}: {key!r} is missing")
    value = config[key]
    if kind is float and type(value) is int:
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise CheckpointError(f"{where}: {key!r} is {value!r}, expected {kind.__name__}")
    return value


def load_tensors(
    folder: Path,
    expected: Mapping[str, tuple[int, ...]],
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
) -> dict[str, torch.Tensor]:
    """Every tensor of ``expected`` (name -> shape), cast and moved; a missing, extra or misshapen one is an error."""
    location = tensor_files(folder)
    missing, extra = sorted(expected.keys() - location.keys()), sorted(location.keys() - expected.keys())
    if missing:
        raise CheckpointError(f"{folder}: tensor {missing[0]!r} is missing{_and_more(missing)}")
    if extra:
        raise CheckpointError(f"{folder}: tensor {extra[0]!r} is not part of this architecture{_and_more(extra)}")
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(set(location.values())):
        with _open(path) as shard:
            for name in shard.keys():  # noqa: SIM118 - a safetensors handle is not a mapping
                tensor = shard.get_tensor(name)
                if tuple(tensor.shape) != expected[name]:
                    raise CheckpointError(
                        f"{path}: tensor {name!r} has shape {list(tensor.shape)}, expected {list(expected[name])}"
                    )
                tensors[name] = tensor.to(device=device, dtype=dtype)
    return tensors


def tensor_files(folder: Path) -> dict[str, Path]:
    """Which file of the folder holds each tensor."""
    index_path = folder / _INDEX
    if not index_path.exists():
        path = folder / _SINGLE
        with _open(path) as handle:
            return dict.fromkeys(handle.keys(), path)
    weight_map = _read_json(index_path).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{index_path}: 'weight_map' is missing")
    location = {str(name): folder / str(file) for name, file in weight_map.items()}
    for path in sorted(set(location.values())):
        with _open(path) as handle:
            listed = {name for name, home in location.items() if home == path}
            wrong = sorted(listed ^ set(handle.keys()))
            if wrong:
                raise CheckpointError(f"{path}: tensor {wrong[0]!r} disagrees with {_INDEX}{_and_more(wrong)}")
    return location


def _open(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError, struct.error) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file ({error})") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return value


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
