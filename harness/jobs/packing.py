"""The last step: which file ships, and the folder that it ships in."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness import __version__
from harness.data.lineage import suite_lineage
from harness.data.protection import protection_lineage
from harness.data.sources import split_file
from harness.evals.lock import code_digest
from harness.evals.reference import reference_of
from harness.evals.results import Scorecard, Verdict
from harness.evals.samples import read_samples
from harness.evals.work import Prompts, Work
from harness.export.pick import Candidate, Choice, pick
from harness.export.release import ReleaseContents, write_release
from harness.files import read_json, sha256_file
from harness.jobs.orders import MAKING_ROOMS, Loaded
from harness.specs.load import find_document, load_release
from harness.specs.suite import LABELLED

LIBRARIES = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "llama-cpp-python",
    "gguf",
    "numpy",
    "safetensors",
)


def pick_quant(folder: Path, loaded: Loaded, verdicts: Mapping[str, Verdict | None]) -> Choice:
    """The file that ships, and for each other one the reason why not."""
    export = loaded.recipe.export
    return pick(
        candidates_of(folder, verdicts), loaded.recipe.device, max_mean_kl=export.max_mean_kl, aim=export.pick
    )


def candidates_of(folder: Path, verdicts: Mapping[str, Verdict | None]) -> list[Candidate]:
    """The quantized files of a run, each with all that was measured on it; None is one that was not judged."""
    return [_candidate(folder, quant, verdict) for quant, verdict in verdicts.items()]


def _candidate(folder: Path, quant: str, verdict: Verdict | None) -> Candidate:
    fidelity = folder / "stages" / quant / "fidelity.json"
    found = read_json(fidelity) if fidelity.exists() else {}
    return Candidate(
        quant, (folder / "artifacts" / f"model-{quant}.gguf").stat().st_size, verdict,
        mean_kl=found.get("mean_kl"), memory_mb=found.get("child_peak_mb"), top1=found.get("top1"),
        decode_ms=found.get("decode_ms"), prompt_tok_s=found.get("prompt_tok_s"), variant=found.get("variant", ""),
    )  # fmt: skip


def pack(
    folder: Path, loaded: Loaded, options: Mapping[str, Any], choice: Choice, verdicts: Mapping[str, Verdict]
) -> Path:
    """The release folder, written whole and verified.

    Raises:
        RefusedError: the picked file's verdict is not PASS for exactly its bytes.
        IntegrityError: the file changed since it was judged.
    """
    assert choice.picked is not None
    gguf = folder / "artifacts" / f"model-{choice.picked}.gguf"
    contents = ReleaseContents(
        recipe=loaded.recipe.model_dump(mode="json"), picked=choice.picked, gguf=gguf,
        gguf_sha256=sha256_file(gguf), verdicts=verdicts, scorecards=_scorecards(folder, list(verdicts)),
        lock=loaded.lock, lineage=_lineage(folder, loaded, options), fidelity=_fidelity(folder, list(verdicts)),
        pick=choice.to_json(), notes=_notes(folder), calibrations=_calibrations(folder, choice.picked),
        sequence=_sequence(folder), suites=_suites(loaded), reference=_reference(folder, loaded, choice.picked),
    )  # fmt: skip
    return write_release(Path(options["out"]) / folder.name, contents).folder


def endorse(release: Path) -> str:
    """Signs the release with the one key that can sign here; what came of it, beginning with UNSIGNED where nothing.

    A worker has no terminal to ask for a passphrase: it takes `HARNESS_KEY_PASSPHRASE` or leaves the release unsigned.
    """
    from harness.errors import HarnessError
    from harness.export.keys import KeyStore, Trust
    from harness.export.release import sign_release

    store = KeyStore()
    try:
        keys = store.signing_keys()
        if len(keys) != 1:
            return (
                f"UNSIGNED: {len(keys) or 'no'} keys can sign here: harness keys new, harness sign {release}"
            )
        passphrase = os.environ.get("HARNESS_KEY_PASSPHRASE")
        signer = store.signer(keys[0], passphrase.encode() if passphrase else None)
        return sign_release(release, signer, Trust(store.known(), is_demanded=True)).signature
    except HarnessError as error:
        return f"UNSIGNED: {error.message}: harness sign {release}"


def _calibrations(folder: Path, stage: str) -> dict[str, Any]:
    paths = sorted((folder / "stages" / stage).glob("*/calibration.json"))
    return {path.parent.name: read_json(path) for path in paths}


def _reference(folder: Path, loaded: Loaded, stage: str) -> dict[str, Any]:
    return {
        name: reference_of(
            read_samples(folder / "stages" / stage / name / "samples.jsonl"), slices=suite.slices,
            is_labelled=suite.task in LABELLED,
        )
        for name, suite in loaded.suites.items()
    }  # fmt: skip


def _suites(loaded: Loaded) -> dict[str, Any]:
    return {
        name: {
            "suite": suite.model_dump(mode="json"), "labels": list(loaded.labels[name]),
            "examples": Prompts(_work(loaded, name)).example_turns(),
        }
        for name, suite in loaded.suites.items()
    }  # fmt: skip


def _work(loaded: Loaded, name: str) -> Work:
    splits = loaded.splits[name]
    return Work(
        "release", loaded.suites[name], loaded.labels[name], tuple(splits["eval"]), tuple(splits["train"])
    )


def _sequence(folder: Path) -> int:
    """The second in which the run was ordered: the same when it is resumed, and later for a later run."""
    created = datetime.fromisoformat(read_json(folder / "manifest.json")["created"])
    return int(created.timestamp())


def _scorecards(folder: Path, stages: Sequence[str]) -> dict[str, dict[str, Scorecard]]:
    return {
        stage: {
            path.parent.name: Scorecard.from_json(read_json(path))
            for path in sorted((folder / "stages" / stage).glob("*/scorecard.json"))
        }
        for stage in stages
    }


def _fidelity(folder: Path, stages: Sequence[str]) -> dict[str, Any]:
    paths = {stage: folder / "stages" / stage / "fidelity.json" for stage in stages}
    return {stage: read_json(path) for stage, path in paths.items() if path.exists()}


def _lineage(folder: Path, loaded: Loaded, options: Mapping[str, Any]) -> dict[str, Any]:
    data_root = Path(options["data_root"]) if options["data_root"] else None
    found = load_release(find_document(options["recipe"]), data_root=data_root)
    return {
        "base": {"reference": loaded.recipe.base, **read_json(folder / "base.json")},
        "data": [
            suite_lineage(suite, suite_path=path, data_root=data_root).to_json() for suite, path in found.suites
        ],
        # Of a base that ships as it is, there is neither.
        **_of_training(folder, loaded),
        "code": {"harness": __version__, "sha256": code_digest(MAKING_ROOMS)},
        "environment": {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "system": platform.system(),
        },
        "protection": protection_lineage(training_files(loaded, found.path, data_root)),
        "deviations": loaded.recipe.model_dump(mode="json")["deviations"],
        "run": folder.name,
        "libraries": {name: found_version for name in LIBRARIES if (found_version := _version(name))},
    }  # fmt: skip


def _of_training(folder: Path, loaded: Loaded) -> dict[str, Any]:
    if not loaded.recipe.tune.trains:
        return {}
    merge = folder / "artifacts" / "merge.json"
    return {"training": read_json(folder / "train.json"), "merge": read_json(merge)}


def training_files(loaded: Loaded, recipe_path: Path, data_root: Path | None) -> list[Path]:
    """The files that trained: the recipe's own, else that of the first suite; none where nothing trains."""
    if not loaded.recipe.tune.trains:
        return []
    if loaded.data:
        return list(loaded.data)
    first = load_release(recipe_path, data_root=data_root).suites[0]
    path = split_file(first.suite, "train", suite_path=first.path, data_root=data_root)
    return [] if path is None else [path]


def _notes(folder: Path) -> tuple[str, ...]:
    from harness.jobs.journal import read_events

    events = read_events(folder / "events.jsonl")
    warnings = [
        event.data["text"] for event in events if event.name == "note" and event.data["level"] == "warning"
    ]
    # Whether it was signed is said of an earlier attempt to pack, and must not change what is signed.
    warnings = [text for text in warnings if not text.startswith("UNSIGNED")]
    return tuple(dict.fromkeys(warnings))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
