from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from harness.errors import ModelError
from harness.export.gguf import convert
from harness.export.imatrix import collect_imatrix, write_imatrix
from harness.export.native import Native, NativeCrash
from harness.export.quantize import FILE_TYPES, Override, dry_run, quantize
from harness.files import sha256_file
from tests.export.tiny_models import gguf_logits, mean_kl, save_checkpoint

pytestmark = pytest.mark.usefixtures("warm")


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


def test_a_child_that_has_quantized_answers_what_else_it_is_asked(llama_gguf: Path, tmp_path: Path) -> None:
    with Native(threads=1) as native:
        native.call(
            "quantize",
            source=str(llama_gguf),
            out=str(tmp_path / "x.gguf"),
            ftype=FILE_TYPES["q8_0"],
            threads=1,
        )

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


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama whose rows fill whole blocks of 256."""
    folder = tmp_path_factory.mktemp("wide")
    checkpoint = save_checkpoint(folder / "model", hidden_size=256, intermediate_size=512, head_dim=64)
    return convert(checkpoint, folder / "wide.gguf", metadata={}).path


@pytest.fixture(scope="module")
def importances(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Columns of very different weight."""
    return importances_of(wide, tmp_path_factory.mktemp("imatrix") / "imatrix.gguf")


def importances_of(path: Path, out: Path) -> Path:
    matrix = collect_imatrix(path, [[int(token) for token in range(1, 300, 2)] for _ in range(3)], threads=1)
    return write_imatrix(matrix, out, dataset="train")


def test_what_a_dry_run_says_is_what_is_written(wide: Path, importances: Path, tmp_path: Path) -> None:
    quants = ["q8_0", "q4_k_m", "q4_0", "iq4_xs", "iq3_xxs", "iq2_xs"]

    said = dry_run(wide, quants, imatrix=importances, threads=1)

    for told in said:
        report = quantize(wide, tmp_path / "x.gguf", told.quant, imatrix=importances, threads=1)
        assert abs(told.bytes - report.bytes) < 1024
        assert (told.fallback_count, told.tensor_count) == (report.fallback_count, report.tensor_count)
    assert [told.bytes for told in said] == sorted((told.bytes for told in said), reverse=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.gguf"]


def test_a_quant_of_so_few_bits_is_refused_without_importances(wide: Path, tmp_path: Path) -> None:
    needs = {told.quant: told.needs_imatrix for told in dry_run(wide, list(FILE_TYPES), threads=1)}

    assert {quant for quant, needed in needs.items() if needed} >= {"iq2_xxs", "iq2_xs", "iq2_s", "q2_k_s"}
    assert not any(needs[quant] for quant in ("q8_0", "q6_k", "q4_k_m", "q4_0", "iq4_xs", "q3_k_m", "q2_k"))
    with pytest.raises(ModelError, match="needs an importance matrix") as caught:
        quantize(wide, tmp_path / "x.gguf", "iq2_xs", threads=1)
    assert "export.imatrix" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_importances_move_the_error_to_columns_that_matter_less(
    wide: Path, tmp_path: Path, native: Native
) -> None:
    """Rounded with the weights of the very text that is read, the file is nearer to its source on it."""
    ids = [int(token) for token in range(1, 300, 2)]
    matrix = write_imatrix(collect_imatrix(wide, [ids], threads=1), tmp_path / "imatrix.gguf", dataset="x")
    exact = gguf_logits(native, wide, ids)

    kl = {}
    for name, path in (("plain", None), ("weighed", matrix)):
        out = quantize(wide, tmp_path / f"{name}.gguf", "q3_k_m", imatrix=path, threads=1).path
        kl[name] = mean_kl(exact, gguf_logits(native, out, ids))

    assert kl["weighed"] < kl["plain"]


def test_the_file_names_the_importances_that_it_was_rounded_with(
    wide: Path, importances: Path, tmp_path: Path
) -> None:
    import gguf

    path = quantize(wide, tmp_path / "x.gguf", "q4_k_m", imatrix=importances, threads=1).path
    plain = quantize(wide, tmp_path / "y.gguf", "q4_k_m", threads=1).path

    key = "dragongate.imatrix_sha256"
    assert gguf.GGUFReader(path).fields[key].contents() == sha256_file(importances)
    assert key not in gguf.GGUFReader(plain).fields


def test_importances_of_another_model_are_refused(
    llama_gguf: Path, importances: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError):
        quantize(llama_gguf, tmp_path / "x.gguf", "q4_0", imatrix=importances, threads=1)
    assert list(tmp_path.iterdir()) == []


def test_the_first_override_that_matches_gives_a_tensor_its_type(wide: Path, tmp_path: Path) -> None:
    import gguf

    chosen = [Override(r"blk\.0\.ffn_down", "q8_0"), Override(r"ffn_down", "q5_k")]

    path = quantize(wide, tmp_path / "x.gguf", "q4_0", overrides=chosen, threads=1).path

    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
    assert types["blk.0.ffn_down.weight"] == "Q8_0"
    assert types["blk.1.ffn_down.weight"] == "Q5_K"
    assert types["blk.0.ffn_up.weight"] == "Q4_0"


def test_an_override_to_an_unknown_type_is_refused(wide: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="q9_9"):
        quantize(wide, tmp_path / "x.gguf", "q4_0", overrides=[Override("ffn", "q9_9")], threads=1)
