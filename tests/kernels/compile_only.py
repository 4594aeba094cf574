"""Compiles every Triton kernel of the package for GPUs that need not be there, and prints what each one takes.

Usage: ``python compile_only.py [capability ...]``, by default 80, 90 and 100. One JSON object a kernel and capability:
name, capability, num_warps, registers a thread, stack (bytes a thread of local memory, which is where spills go) and
shared (bytes a block). Compiled kernels go to TRITON_CACHE_DIR. Not for a process under TRITON_INTERPRET.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import streamer_kernels
from streamer_kernels.compile_case import CompileCase

CAPABILITIES = (80, 90, 100)
_FLOAT8_SINCE = 89


def all_cases() -> Iterator[CompileCase]:
    """The cases of every module of the package that has any."""
    for module in pkgutil.walk_packages(streamer_kernels.__path__, "streamer_kernels."):
        loaded = importlib.import_module(module.name)
        if hasattr(loaded, "compile_cases"):
            yield from loaded.compile_cases()


def supported(case: CompileCase, capability: int) -> bool:
    """Whether GPUs of this capability have all types of the case."""
    return capability >= _FLOAT8_SINCE or not any("fp8" in kind for kind in case.signature.values())


def compile_case(case: CompileCase, capability: int) -> dict[str, Any]:
    """Compile one case and read its resource usage out of the machine code."""
    kinds = {name: case.signature.get(name, "constexpr") for name in case.kernel.arg_names}
    # At launch Triton sees that torch's memory is aligned; vector loads depend on it.
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(kinds.values()) if kind.startswith("*")}
    source = ASTSource(case.kernel, kinds, constexprs=dict(case.constexprs), attrs=aligned)
    target = GPUTarget("cuda", capability, 32)
    compiled = triton.compile(source, target=target, options={"num_warps": case.num_warps})
    usage = resource_usage(compiled.asm["cubin"])
    return {
        "name": case.name,
        "capability": capability,
        "num_warps": case.num_warps,
        "registers": usage["REG"],
        "stack": usage["STACK"] + usage["LOCAL"],
        "shared": compiled.metadata.shared,
    }


def resource_usage(cubin: bytes) -> dict[str, int]:
    """What ``cuobjdump``, which comes with Triton, says of a kernel: REG, STACK, LOCAL and more."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    return {name: int(value) for name, value in re.findall(r"\b([A-Z]+):(\d+)", done.stdout)}


def main() -> None:
    """Print one line a kernel and capability."""
    capabilities = [int(argument) for argument in sys.argv[1:]] or CAPABILITIES
    for case in all_cases():
        for capability in capabilities:
            if supported(case, capability):
                print(json.dumps(compile_case(case, capability)), flush=True)


if __name__ == "__main__":
    main()
