"""What a benchmark ran on, for the line above its figures and for its report."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

from streamer import __version__


def machine() -> str:
    """Date, processor, cores, load by others, Python, and the version of this project, in one line."""
    load = os.getloadavg()[0]
    return (
        f"{datetime.date.today()}, {cpu_name()}, {_cores()} cores, load {load:.1f} before the run, "
        f"Python {platform.python_version()}, streamer {__version__}"
    )


def describe_machine(device: object = "cpu") -> dict[str, str | int | float | None]:
    """The same, with torch, its threads and the accelerator ``device`` (a torch device or its name), by name."""
    # Imported here because the front end is measured without torch.
    import torch

    on_cuda = torch.device(str(device)).type == "cuda"
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": cpu_name(),
        "cores": _cores(),
        "load_1_min": round(os.getloadavg()[0], 2),
        "gpu": torch.cuda.get_device_name(str(device)) if on_cuda else None,
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "streamer": __version__,
    }


def cpu_name() -> str:
    """The processor's model name and, as a virtual machine's says little, the vector instructions that matter."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    lines = dict(line.split(":", 1) for line in info.read_text(encoding="utf-8").splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    flags = fields.get("flags", "").split()
    known = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    return " ".join([fields.get("model name", platform.machine()), *([f"({', '.join(known)})"] if known else [])])


def _cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
