from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from harness.errors import ModelError
from harness.export.native import Native, NativeCrash
from harness.export.quantize import FILE_TYPES, quantize
from tests.export.tiny_models import gguf_logits, mean_kl


def test_every_quant_loads_and_is_nearer_to_its_source_the_larger_it_is(
    llama_gguf: Path, tmp_path: Path, native: Native
) -> None:
    ids = list(range(40))
    exact = gguf_logits(native, llama_gguf, ids)

    kl = {}
    for quant in ("q8_0", "q5_0", "q4_0"):
        path = quantize(llama_gguf, tmp_path / f"{quant}.gguf", quant, threads=1).path
        kl[quant] = mean_kl(exact, gguf_logits(native, path, ids))

    assert 0 < kl["q8_0"] < kl["q5_0"] < kl["q4_0"]


def test_rows_that_fit_no_block_are_counted_and_warned_of(llama_gguf: Path, tmp_path: Path) -> None:
    report = quantize(llama_gguf, tmp_path / "small.gguf", "q4_k_m", threads=1)

    assert 0 < report.fallback_count < report.tensor_count
    assert report.warning is not None
    assert f"{report.fallback_count} of {report.tensor_count} tensors" in report.warning
    assert report.bytes == report.path.stat().st_size < llama_gguf.stat().st_size


def test_progress_ends_at_the_last_tensor(llama_gguf: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    report = quantize(
        llama_gguf, tmp_path / "q8.gguf", "q8_0", threads=1, on_progress=lambda *at: seen.append(at)
    )

    assert seen[-1] == (report.tensor_count, report.tensor_count)
    assert seen == sorted(seen)


def test_the_same_source_gives_the_same_bytes_with_any_threads(llama_gguf: Path, tmp_path: Path) -> None:
    one = quantize(llama_gguf, tmp_path / "one.gguf", "q8_0", threads=1)
    two = quantize(llama_gguf, tmp_path / "two.gguf", "q8_0", threads=2)

    assert one.path.read_bytes() == two.path.read_bytes()


def test_an_unknown_quant_is_refused_and_the_known_ones_are_named(llama_gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="q4_k_m") as caught:
        quantize(llama_gguf, tmp_path / "x.gguf", "q4_k", threads=1)
    assert all(quant in caught.value.message for quant in FILE_TYPES)


@pytest.mark.parametrize("keep_bytes", [0, 4, 60, 20_000, -100])
def test_a_source_that_is_cut_short_is_an_error_and_leaves_nothing(
    keep_bytes: int, llama_gguf: Path, tmp_path: Path
) -> None:
    source, out = tmp_path / "short.gguf", tmp_path / "out.gguf"
    source.write_bytes(llama_gguf.read_bytes()[:keep_bytes])
    out.write_bytes(b"earlier")

    with pytest.raises(ModelError):
        quantize(source, out, "q8_0", threads=1)
    assert out.read_bytes() == b"earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.gguf", "short.gguf"]


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.gguf"):
        quantize(tmp_path / "absent.gguf", tmp_path / "out.gguf", "q8_0", threads=1)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGKILL])
def test_a_native_crash_is_an_error_of_the_caller(number: signal.Signals) -> None:
    with Native(threads=1) as native:
        os.kill(native.pid, number)

        with pytest.raises(NativeCrash, match=number.name):
            native.call("open_words", path="x.gguf")


def test_a_refused_request_leaves_the_child_ready(llama_gguf: Path, tmp_path: Path, native: Native) -> None:
    (tmp_path / "no.gguf").write_bytes(b"GGUF and nothing else")

    with pytest.raises(ModelError, match=r"no\.gguf"):
        native.call("open_words", path=str(tmp_path / "no.gguf"))
    with pytest.raises(ModelError, match="no operation"):
        native.call("format_disk")
    assert native.call("open_words", path=str(llama_gguf)).fields["template"]


def test_a_child_ends_with_its_caller(tmp_path: Path) -> None:
    import subprocess
    import sys
    import time

    code = (
        "import os, sys; from harness.export.native import Native; n = Native(threads=1);"
        "print(n.pid, flush=True); n.call('encode_nothing') if 0 else sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as caller:
        assert caller.stdout is not None
        child = int(caller.stdout.readline())
        caller.kill()
    deadline = time.monotonic() + 20
    while _is_alive(child) and time.monotonic() < deadline:
        os.sched_yield()
    assert not _is_alive(child)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
