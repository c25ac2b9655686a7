"""A release's bill of materials: the model, what it was made of, and how to check each part.

Source: CycloneDX 1.6 JSON, https://cyclonedx.org/docs/1.6/json/, with `modelCard`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from harness.evals.results import Reading, State
from harness.text import visible

if TYPE_CHECKING:
    from harness.export.header import Header
    from harness.export.release import ReleaseContents

BOM = "bom.cdx.json"


def bill_of_materials(
    model_file: str, contents: ReleaseContents, header: Header | None = None
) -> dict[str, Any]:
    """The CycloneDX document. The same contents give the same document; it holds no time.

    `header` is what the GGUF says of itself, where it could be read.
    """
    lineage, recipe = contents.lineage, contents.recipe
    model = _model(model_file, contents, header)
    base, data, libraries = _base(lineage.get("base")), list(_data(lineage)), list(_libraries(lineage))
    parts = [base, *data, *libraries]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, f'dragongate:{contents.gguf_sha256}')}",
        "version": 1,
        "metadata": {
            "component": model,
            "tools": {"components": [_harness(lineage)]},
            "properties": [
                {"name": "dragongate:lock", "value": str(contents.lock["digest"])},
                {"name": "dragongate:recipe", "value": _text(recipe["recipe"])},
                {"name": "dragongate:sequence", "value": str(contents.sequence)},
            ],
        },
        "components": parts,
        "dependencies": [
            {"ref": model["bom-ref"], "dependsOn": sorted({part["bom-ref"] for part in parts})},
            *({"ref": part["bom-ref"]} for part in parts),
        ],
    }


def _model(model_file: str, contents: ReleaseContents, header: Header | None) -> dict[str, Any]:
    recipe, verdict = contents.recipe, contents.verdicts[contents.picked]
    architecture = {"modelArchitecture": _text(header.architecture)} if header else {}
    return {
        "bom-ref": "model",
        "type": "machine-learning-model",
        "name": _text(recipe["recipe"]),
        "version": str(recipe.get("version", 1)),
        "description": _text(recipe.get("description") or ""),
        "hashes": [{"alg": "SHA-256", "content": contents.gguf_sha256}],
        "properties": [
            {"name": "dragongate:file", "value": model_file},
            {"name": "dragongate:stage", "value": contents.picked},
            {"name": "dragongate:verdict", "value": verdict.verdict.value},
        ],
        "modelCard": {
            "modelParameters": {
                "task": _text(recipe.get("domain", "unknown")),
                **architecture,
                "datasets": [{"ref": part["bom-ref"]} for part in _data(contents.lineage)],
            },
            "quantitativeAnalysis": {
                "performanceMetrics": [
                    _metric(suite, reading)
                    for suite, card in contents.scorecards.get(contents.picked, {}).items()
                    for reading in card.readings
                    if reading.score is not None
                ]
            },
            "considerations": {"technicalLimitations": list(_limits(contents)) or ["None was measured."]},
        },
    }


def _metric(suite: str, reading: Reading) -> dict[str, Any]:
    metric = {
        "type": _text(f"{suite} {reading.metric}"),
        "slice": _text(reading.slice),
        "value": f"{reading.score:.6g}",
    }
    if reading.low is None or reading.high is None:
        return metric
    bounds = {"lowerBound": f"{reading.low:.6g}", "upperBound": f"{reading.high:.6g}"}
    return {**metric, "confidenceInterval": bounds}


def _limits(contents: ReleaseContents) -> Iterator[str]:
    """What is known to be weak: waived rules, groups that were too small, and what the notes say."""
    for rule in contents.verdicts[contents.picked].rules:
        if rule.waiver is not None:
            yield _text(f"{rule.rule} · {rule.slice}: {rule.reason}")
        if rule.verdict is State.SKIPPED:
            yield _text(f"{rule.rule} · {rule.slice}: not judged: {rule.reason}")
    yield from (_text(note) for note in contents.notes)


def _base(base: Any) -> dict[str, Any]:
    """The base by its identity, a digest of digests: no file has it, so it is a property and no hash."""
    known: Mapping[str, Any] = base if isinstance(base, Mapping) else {"reference": base}
    return {
        "bom-ref": "base",
        "type": "machine-learning-model",
        "name": _text(known.get("reference") or "unknown"),
        "properties": [
            {"name": f"dragongate:{key}", "value": _text(value)}
            for key, value in known.items()
            if key != "reference" and value
        ],
        **_licence(known),
    }


def _data(lineage: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    suites = lineage.get("data")
    for suite in suites if isinstance(suites, list) else ():
        for file in suite["files"]:
            name = _text(f"{suite['suite']}/{file['name']}")
            yield {
                "bom-ref": f"data:{quote(name)}",
                "type": "data",
                "name": name,
                "hashes": [{"alg": "SHA-256", "content": file["sha256"]}],
                "properties": [{"name": "dragongate:bytes", "value": str(file["bytes"])}],
                **_licence(suite),
            }


def _libraries(lineage: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What it was made with, by name and version. Hashes of installed packages would be of no published file."""
    for name, version in lineage.get("libraries", {}).items():
        purl = f"pkg:pypi/{quote(name.lower())}@{quote(str(version))}"
        yield {
            "bom-ref": purl,
            "type": "library",
            "name": _text(name),
            "version": _text(version),
            "purl": purl,
        }


def _harness(lineage: Mapping[str, Any]) -> dict[str, Any]:
    code = lineage.get("code")
    known = code if isinstance(code, Mapping) else {"sha256": code}
    return {
        "bom-ref": "dragongate",
        "type": "application",
        "name": "dragongate",
        "version": _text(known.get("harness", "unknown")),
        "properties": [{"name": "dragongate:code", "value": _text(known.get("sha256"))}],
    }


def _licence(known: Mapping[str, Any]) -> dict[str, Any]:
    """Only what the lineage states: an unknown licence is left out, never guessed."""
    licence = known.get("licence") or known.get("license")
    return {"licenses": [{"license": {"name": _text(licence)}}]} if licence else {}


def _text(value: Any) -> str:
    return visible(str(value), keep_newlines=False, limit_chars=500)
