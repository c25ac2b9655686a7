"""Whether llama.cpp survives its first decode of a file on this processor: tried in a process of its own.

llama.cpp built with some compilers crashes in its AMX kernels on every quantized file. Without the extra
buffers it avoids those kernels, and is slower.
"""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache
from pathlib import Path

TIMEOUT_S = 300.0
CPUINFO = Path("/proc/cpuinfo")


def has_amx(cpuinfo: Path = CPUINFO) -> bool:
    """The processor has AMX."""
    try:
        return any(
            line.startswith("flags") and "amx_int8" in line.split()
            for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        )
    except OSError:
        return False


def needs_plain_buffers(path: Path, *, is_quantized: bool) -> bool:
    """Decoding this file with llama.cpp's defaults kills the process."""
    return is_quantized and has_amx() and not survives(path)


@lru_cache(maxsize=64)
def survives(path: Path) -> bool:
    """A first decode with llama.cpp's defaults ends well in a child process."""
    command = [sys.executable, "-m", "harness.models.gguf_probe", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def decode_once(path: Path) -> None:
    """Loads the file and decodes 64 tokens: enough for the kernels that crash."""
    from harness.models.gguf_api import Cache, Context, Feed, Weights

    with Weights(path) as weights:
        context = Context(weights, Cache(cells=256, sequences=1), batch_tok=64, threads=1)
        context.decode([Feed(at % weights.vocab_size, at, (0,), at == 63) for at in range(64)])
        context.close()


if __name__ == "__main__":
    decode_once(Path(sys.argv[1]))
