"""Files that are whole or absent, JSON that means one thing, and digests."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from harness.errors import DataError, IntegrityError

MAX_JSON_BYTES = 64 * 2**20
MAX_JSON_DEPTH = 64


def sha256_file(path: Path) -> str:
    """The hex digest of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """The hex digest of the text in UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def canonical_json(value: Any) -> str:
    """One spelling for one value: sorted keys, no spaces, no NaN. Two equal values have equal digests."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_json(value: Any) -> str:
    """The hex digest of the value's canonical JSON."""
    return sha256_text(canonical_json(value))


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes the whole file or leaves what was there: temporary file, fsync, rename, fsync of the folder."""
    with file_written_whole(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """Writes the value atomically as indented JSON; NaN is refused."""
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def file_written_whole(target: Path) -> Iterator[BinaryIO]:
    """A file beside `target` to write to, piece by piece; it becomes `target` only if the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    fsync_folder(target.parent)


@contextmanager
def folder_written_whole(target: Path) -> Iterator[Path]:
    """A folder beside `target` to fill; it becomes `target` only if the block ends well.

    Every file is synced before the rename, so a crash leaves either nothing or all of it.
    Leftovers of earlier crashes are removed first.
    """
    import shutil

    target.parent.mkdir(parents=True, exist_ok=True)
    for left_over in target.parent.glob(f".{target.name}.*.part"):
        shutil.rmtree(left_over, ignore_errors=True)
    part = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part"))
    try:
        yield part
        part.chmod(0o755)
        _sync_tree(part)
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    fsync_folder(target.parent)


def fsync_folder(folder: Path) -> None:
    """Makes renames in the folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            fsync_folder(path)
    fsync_folder(folder)


def read_json(path: Path) -> Any:
    """The value of a JSON file that decides something: read with `parse_json`.

    Raises:
        DataError: the file is missing, too large, or not the strict JSON that `parse_json` takes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)  # a sparse file claims terabytes and costs nobody anything
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    return parse_json(data, name=str(path))


def parse_json(data: bytes | str, *, name: str = "JSON") -> Any:
    """The value, or an error: duplicate keys, NaN, infinities, bad UTF-8, depth and size over limits are refused.

    The standard parser lets the last of two equal keys win, so `{"gate": "FAIL", "gate": "PASS"}`
    would read as PASS.
    """
    if len(data) > MAX_JSON_BYTES:
        raise DataError(f"{name}: over the limit of {MAX_JSON_BYTES:,} bytes")
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DataError(f"{name}: {error}") from error
    _check_depth(value, name)
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = min(key for key, count in counts.items() if count > 1)
        raise ValueError(f"duplicate key {twice!r}")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number that can be compared")


def _check_depth(value: Any, name: str) -> None:
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    raise DataError(f"{name}: nested deeper than {MAX_JSON_DEPTH} levels")


def check_digest(path: Path, wanted: str) -> None:
    """Returns when the file has the digest.

    Raises:
        IntegrityError: it has another one, or is not there.
    """
    if not path.is_file():
        raise IntegrityError(f"{path}: missing, wanted a file with sha256 {wanted[:16]}…")
    found = sha256_file(path)
    if found != wanted:
        raise IntegrityError(f"{path}: sha256 is {found[:16]}…, wanted {wanted[:16]}…: its bytes changed")


def bundled_root() -> Path:
    """The folder with the `suites` and `recipes` that come with the harness, or stand beside it in a checkout."""
    package = Path(__file__).resolve().parent
    bundled = package / "_bundled"
    return bundled if bundled.is_dir() else package.parent
