"""What a verdict was about, file by file: written when it is given, looked at whenever it is read.

A verdict on bytes that have changed since is STALE. Size and time of change are looked at first, and the bytes only
where those differ, so that looking costs nothing. A file that is gone is no other file: only what was judged and what
was read of it must be there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.files import digest_json, read_json, sha256_file, write_json

SEAL = "seal.json"
_EVIDENCE = (
    "*/samples.jsonl",
    "*/noise.json",
    "*/calibration.json",
    "*/plan.json",
    "latency.json",
    "fidelity.json",
    "verdict.json",
)
"""Files of a stage's folder that a verdict follows from, and the verdict."""


def seal(run: Path, stage: str, sources: Iterable[Path] = ()) -> None:
    """Writes down the files that the stage's verdict is about. `sources` are documents and records outside the run."""
    inside = [*_evidence(run, stage), *_artifacts(run, stage)]
    files = {
        **{str(path.relative_to(run)): _facts(path) for path in inside},
        **{str(path.absolute()): _facts(path) for path in sources if path.exists()},
    }
    write_json(run / "stages" / stage / SEAL, {"files": files})


def sources_of(options: Mapping[str, Any]) -> list[Path]:
    """The recipe, its suites and the files of their records, as the run's options name them.

    Raises:
        SpecError: the documents have problems by now.
        DataError: a public set is gone.
    """
    from harness.data.sources import files_of
    from harness.specs.load import load_release

    root = Path(options["data_root"]) if options.get("data_root") else None
    found = load_release(options["recipe"], data_root=root)
    files = [path for suite, at in found.suites for path in files_of(suite, suite_path=at, data_root=root)]
    return list(dict.fromkeys([found.path, *(suite.path for suite in found.suites), *files]))


def changes_since(run: Path, stage: str) -> list[str]:
    """The files of the run that are no longer what the verdict was about, and how; none where nothing was sealed."""
    return [f"{name}: {how}" for name, how in _changed(run, stage) if not Path(name).is_absolute()]


def changed_sources(run: Path, stage: str) -> list[Path]:
    """Documents and records outside the run whose bytes have changed since the verdict."""
    return [Path(name) for name, how in _changed(run, stage) if Path(name).is_absolute() and how != _GONE]


_GONE = "is gone"


def _changed(run: Path, stage: str) -> Iterator[tuple[str, str]]:
    path = run / "stages" / stage / SEAL
    sealed: Mapping[str, Any] = read_json(path)["files"] if path.exists() else {}
    for name, facts in sealed.items():
        now = run / name
        if not now.exists():
            if name.startswith("stages/") or Path(name).is_absolute():
                yield name, _GONE
            continue
        found = now.stat()
        if (found.st_size, found.st_mtime_ns) == (facts["bytes"], facts["mtime_ns"]):
            continue
        if found.st_size != facts["bytes"] or _digest(now) != facts["sha256"]:
            yield name, "its bytes changed"


def _evidence(run: Path, stage: str) -> list[Path]:
    return sorted(path for pattern in _EVIDENCE for path in (run / "stages" / stage).glob(pattern))


def _artifacts(run: Path, stage: str) -> list[Path]:
    """The files of the model that was judged, as far as they lie in the run; the base does not."""
    folders = {"adapter": [run / "train" / "adapter"], "merged": sorted((run / "artifacts").glob("merged-*"))}
    found = [
        path for folder in folders.get(stage, ()) for path in sorted(folder.rglob("*")) if path.is_file()
    ]
    gguf = run / "artifacts" / f"model-{stage}.gguf"
    return [*found, gguf] if gguf.is_file() else found


def _facts(path: Path) -> dict[str, Any]:
    found = path.stat()
    return {"bytes": found.st_size, "mtime_ns": found.st_mtime_ns, "sha256": _digest(path)}


def _digest(path: Path) -> str:
    """Of a file's bytes; of the names in a folder, where a file that is added has no bytes that could have changed."""
    return digest_json(sorted(one.name for one in path.iterdir())) if path.is_dir() else sha256_file(path)
