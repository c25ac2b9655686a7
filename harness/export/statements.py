"""What is said of a release, as in-toto statements: how it was judged, what it was made of, how it is calibrated.

Everything in them follows from the folder's own documents, so the same folder always gives the same statements.

Sources: in-toto Attestation Framework, Statement v1 and test-result v0.1; SLSA provenance v1 (what is claimed is build
level 1: the provenance exists; the build was not isolated).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.evals.ledger import METRIC as ATTEMPT
from harness.evals.results import RuleVerdict, State, Verdict
from harness.files import digest_json, read_json, sha256_file

STATEMENT = "https://in-toto.io/Statement/v1"
TYPES = {
    "evaluation": "https://in-toto.io/attestation/test-result/v0.1",
    "provenance": "https://slsa.dev/provenance/v1",
    "calibration": "urn:dragongate:predicate:calibration:1",
}
"""Predicate types by the statement's name."""
FILES = {name: f"statements/{name}.json" for name in TYPES}
BUILD = "urn:dragongate:build:release:1"
BUILDER = "urn:dragongate:builder:local"


def subjects(manifest: Mapping[str, Any], manifest_sha256: str) -> list[dict[str, Any]]:
    """Every file of the release with its sha256, the manifest among them; statements are about these."""
    digests = {path: entry["sha256"] for path, entry in manifest["files"].items()}
    return [
        {"name": path, "digest": {"sha256": digest}}
        for path, digest in sorted({**digests, "manifest.json": manifest_sha256}.items())
    ]


def statements(folder: Path) -> dict[str, dict[str, Any]]:
    """The three statements about a release folder, by name. The folder is taken as it is: verify it first.

    Raises:
        DataError: a document can't be read.
    """
    manifest = read_json(folder / "manifest.json")
    about = subjects(manifest, sha256_file(folder / "manifest.json"))
    predicates = {
        "evaluation": _evaluation(folder, manifest),
        "provenance": _provenance(folder, manifest),
        "calibration": _calibration(folder, manifest),
    }
    return {
        name: {
            "_type": STATEMENT,
            "subject": about,
            "predicateType": TYPES[name],
            "predicate": predicates[name],
        }
        for name in TYPES
    }


def release_facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Which release a statement is about; each statement repeats it, so that none can serve another release."""
    model = manifest["model"]
    return {
        "recipe": manifest["recipe"],
        "version": manifest["version"],
        "sequence": manifest.get("sequence"),
        "stage": model["stage"],
        "identity": model["identity"],
        "model": model["sha256"],
        "lock": manifest["lock"],
    }


def _evaluation(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    verdict = _verdict(folder, manifest["model"]["stage"])
    by_state: dict[State, list[str]] = {}
    for rule in verdict.rules:
        by_state.setdefault(rule.verdict, []).append(_name(rule))
    waived = [rule for rule in verdict.rules if rule.waiver is not None]
    return {
        "result": "WARNED" if waived else "PASSED" if verdict.verdict is State.PASS else "FAILED",
        "configuration": [
            {"name": "lock.json", "digest": {"sha256": sha256_file(folder / "lock.json")}},
            {"name": "recipe.json", "digest": {"sha256": sha256_file(folder / "recipe.json")}},
        ],
        "passedTests": by_state.get(State.PASS, []),
        "warnedTests": [_name(rule) for rule in waived],
        "failedTests": by_state.get(State.FAIL, []),
        "release": release_facts(manifest),
        "verdict": verdict.to_json(),
        "scorecards": _digests(manifest, f"scorecards/{verdict.stage}/"),
        "attempt": next((rule.n for rule in verdict.rules if rule.metric == ATTEMPT), None),
        "waivers": [_waiver(rule) for rule in waived],
        "failedOnTheWay": list(_failed_on_the_way(folder, manifest)),
    }


def _failed_on_the_way(folder: Path, manifest: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What the other stages did not pass: a reader must not have to look for it."""
    for path in sorted(manifest["files"]):
        if path.startswith("verdicts/"):
            verdict = Verdict.from_json(read_json(folder / path))
            failed = [_name(rule) for rule in verdict.rules if rule.verdict is State.FAIL]
            if failed:
                yield {"stage": verdict.stage, "verdict": verdict.verdict, "failedTests": failed}


def _provenance(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    lineage, recipe = read_json(folder / "lineage.json"), read_json(folder / "recipe.json")
    code = lineage["code"] if isinstance(lineage["code"], dict) else {"sha256": lineage["code"]}
    return {
        "buildDefinition": {
            "buildType": BUILD,
            "externalParameters": {"recipe": recipe, "recipeDigest": {"sha256": digest_json(recipe)}},
            "internalParameters": {
                "release": release_facts(manifest),
                "libraries": lineage["libraries"],
                "environment": lineage.get("environment", {}),
                "training": lineage.get("training", {}),
                "merge": lineage.get("merge", {}),
            },
            "resolvedDependencies": [_base(lineage["base"]), *_data(lineage["data"])],
        },
        "runDetails": {
            "builder": {"id": BUILDER, "version": {"dragongate": str(code.get("harness", "unknown"))}},
            "metadata": {"invocationId": lineage.get("run", "unknown")},
            "byproducts": [{"name": "code", "digest": {"sha256": code["sha256"]}}],
        },
    }


def _base(base: Any) -> dict[str, Any]:
    """The base by its identity, which is a digest of digests and so not a file's sha256."""
    if not isinstance(base, dict):
        return {"name": "base", "annotations": {"reference": str(base)}}
    parts = {key: value for key, value in base.items() if key not in ("reference", "digest") and value}
    return {
        "name": "base",
        "digest": {"dragongateIdentity": base["digest"]},
        "annotations": {"reference": base.get("reference"), **parts},
    }


def _data(data: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(data, list):
        yield {"name": "data", "annotations": {"lineage": data}}
        return
    for suite in data:
        for file in suite["files"]:
            name = f"data/{suite['suite']}/{file['name']}"
            yield {"name": name, "digest": {"sha256": file["sha256"]}}
        for split in suite["splits"]:
            counts = {key: split[key] for key in ("n_records", "n_units")}
            name, digest = f"records/{suite['suite']}/{split['split']}", split["digest"]
            yield {"name": name, "digest": {"dragongateRecords": digest}, "annotations": counts}


def _calibration(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The calibration that the verdict stands on, whole: thresholds are what a device acts by."""
    prefix = f"calibration/{manifest['model']['stage']}/"
    digests = _digests(manifest, prefix)
    return {
        "release": release_facts(manifest),
        "files": digests,
        "calibrations": {path[len(prefix) : -len(".json")]: read_json(folder / path) for path in digests},
    }


def _digests(manifest: Mapping[str, Any], prefix: str) -> dict[str, str]:
    files = manifest["files"]
    return {path: files[path]["sha256"] for path in sorted(files) if path.startswith(prefix)}


def _verdict(folder: Path, stage: str) -> Verdict:
    return Verdict.from_json(read_json(folder / f"verdicts/{stage}.json"))


def _name(rule: RuleVerdict) -> str:
    return f"{rule.suite} · {rule.rule} · {rule.slice}"


def _waiver(rule: RuleVerdict) -> dict[str, Any]:
    assert rule.waiver is not None
    waiver = rule.waiver
    return {
        "rule": _name(rule), "was": rule.waived, "who": waiver.who, "why": waiver.why, "expires": waiver.expires,
    }  # fmt: skip
