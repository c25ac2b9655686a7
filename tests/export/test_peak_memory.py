"""A child's peak is its own."""

import subprocess
import sys

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
