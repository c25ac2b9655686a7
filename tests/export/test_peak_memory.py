"""A child's peak is its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.export.tiny_models import save_checkpoint

ASK = "from harness.export.kernels import peak_mb; print(peak_mb())"


def test_a_childs_peak_does_not_count_what_its_parent_held() -> None:
    script = (
        "import subprocess, sys\n"
        "ballast = bytearray(1_500_000_000)\n"
        "ballast[::4096] = b'x' * len(ballast[::4096])\n"
        f"print(subprocess.run([sys.executable, '-c', {ASK!r}], capture_output=True, text=True).stdout)\n"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert 5 < float(done.stdout) < 1000


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="Linux alone tells a peak from its beginning"
)
def test_converting_holds_one_tensor_at_a_time(tmp_path: Path) -> None:
    """Three matrices of 64 MiB in float32: at most one and its half in 16 bits are there together."""
    small = save_checkpoint(tmp_path / "small")
    large = save_checkpoint(tmp_path / "large", intermediate_size=2**18, num_hidden_layers=1)
    largest_mb = 2**18 * 64 * 4 / 2**20
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from harness.export.gguf import convert\n"
        "def status(key):\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))\n"
        "small, large, out = map(Path, sys.argv[1:])\n"
        "convert(small, out, metadata={})\n"
        "Path('/proc/self/clear_refs').write_text('5')\n"
        "before = status('VmRSS')\n"
        "convert(large, out, metadata={})\n"
        "print(status('VmHWM') - before)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, str(small), str(large), str(tmp_path / "x.gguf")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert largest_mb < float(done.stdout) < 1.5 * largest_mb + 30
