"""What a release claims of the file that ships, held against the evidence beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from harness.errors import DataError
from harness.evals.results import Scorecard, State
from harness.export.opened import LINEAGE, LOCK, MANIFEST, RECIPE, SUITES, Opened, file_identity
from harness.files import digest_json

_LINEAGE_KEYS = ("base", "data", "code", "libraries")


def _model(release: Opened) -> Iterator[str]:
    model = release.manifest["model"]
    models = [path for path in release.files if path.endswith(".gguf")]
    if models != [model["file"]]:
        yield f"wanted one GGUF file, {model['file']}; found {', '.join(models) or 'none'}"
        return
    if release.digests.get(model["file"]) != model["sha256"]:
        yield f"{model['file']} is not the file with sha256 {model['sha256'][:16]}…"
    if model["file"] in release.present:
        with (release.folder / model["file"]).open("rb") as file:
            if file.read(4) != b"GGUF":
                yield f"{model['file']} is no GGUF file"


_headers: dict[str, str] = {}
"""What this process found wrong in headers, by the file's sha256; empty for a good one. A child takes .3 s."""


def _header(release: Opened) -> Iterator[str]:
    from harness.export.header import read_header

    file = release.manifest["model"]["file"]
    digest = release.digests.get(file)
    if digest is None:
        yield f"{file} was not read"
        return
    if digest not in _headers:
        try:
            header = read_header(release.folder / file)
            is_mute = header.template is not None and not any(header.rendered)
            _headers[digest] = "its chat template renders no conversation" if is_mute else ""
        except DataError as error:
            _headers[digest] = error.message
    if _headers[digest]:
        yield _headers[digest]


def _lock(release: Opened) -> Iterator[str]:
    lock = release.read(LOCK)
    digest = digest_json({key: value for key, value in lock.items() if key != "digest"})
    if digest != lock["digest"]:
        yield f"{LOCK} was edited: its parts have digest {digest[:16]}…, it says {lock['digest'][:16]}…"
    if release.manifest["lock"] != lock["digest"]:
        yield f"{MANIFEST} names another lock than {LOCK}"
    found = release.verdict().lock
    if found != lock["digest"]:
        yield f"the verdict stands on lock {found[:16]}…, the release holds {lock['digest'][:16]}…"


def _thresholds(release: Opened) -> Iterator[str]:
    from harness.evals.gate import applies

    gates = _gates(release)
    # As they were written: a rule read by a later version has fields that nobody locked.
    if digest_json(release.read(RECIPE)["gates"]) != release.read(LOCK)["gates"]:
        yield f"the gates of {RECIPE} are not those that {LOCK} froze"
    stage = release.manifest["model"]["stage"]
    judged = {rule.rule for rule in release.verdict().rules}
    for name, gate in gates.items():
        if applies(gate, stage) and gate.name not in judged:
            yield f"rule {name!r} was not judged on {stage}"


def _gates(release: Opened) -> Mapping[str, Any]:
    from harness.specs.gate import Gate

    gates = [Gate.model_validate(gate) for gate in release.read(RECIPE)["gates"]]
    return {f"{gate.name} ({index})": gate for index, gate in enumerate(gates)}


def _verdict(release: Opened) -> Iterator[str]:
    from harness.evals.gate import combine, is_borne_out

    verdict, stage = release.verdict(), release.manifest["model"]["stage"]
    if verdict.verdict is not State.PASS:
        yield f"the verdict on {stage} is {verdict.verdict}"
    if verdict.stage != stage:
        yield f"the verdict is about {verdict.stage}, the release ships {stage}"
    if combine(verdict.rules) is not State.PASS:
        yield f"the rules say {combine(verdict.rules)}"
    gates = {gate.name: gate for gate in _gates(release).values()}
    for rule in verdict.rules:
        if rule.verdict is State.PASS and rule.rule in gates and not is_borne_out(rule, gates[rule.rule]):
            yield f"{rule.rule} · {rule.slice}: its numbers don't bear out PASS"


def _identity(release: Opened) -> Iterator[str]:
    model = release.manifest["model"]
    shipped = file_identity(release.digests.get(model["file"], ""))
    named = {"the verdict": release.verdict().identity, MANIFEST: model["identity"]}
    for what, identity in named.items():
        if identity != shipped:
            yield f"{what} is about another file than {model['file']}"


def _scorecards(release: Opened) -> Iterator[str]:
    verdict, stage = release.verdict(), release.manifest["model"]["stage"]
    for suite in sorted({rule.suite for rule in verdict.rules}):
        card = Scorecard.from_json(release.read(f"scorecards/{stage}/{suite}.json"))
        if (card.identity, card.stage, card.suite) != (verdict.identity, stage, suite):
            yield f"scorecards/{stage}/{suite}.json is about another file, stage or suite"
        if card.n < 1:
            yield f"scorecards/{stage}/{suite}.json scored nothing"


def _suites(release: Opened) -> Iterator[str]:
    """A device asks what the folder says was evaluated: another prompt is another question, and nobody judged it."""
    paths = sorted(path for path in release.files if path.startswith(f"{SUITES}/"))
    locked = release.read(LOCK).get("suites", {}) if paths else {}
    for path in paths:
        asked = release.read(path)
        name = asked["suite"]["suite"]
        if path != f"{SUITES}/{name}.json" or name not in locked:
            yield f"{path} holds suite {name}, which {LOCK} does not name so"
        elif digest_json(asked["suite"]) != locked[name]["document"]:
            yield f"{path} is not the suite that {LOCK} froze"
        elif asked["suite"]["labels"] and asked["labels"] != asked["suite"]["labels"]:
            yield f"{path} has other labels than its suite"


def _lineage(release: Opened) -> Iterator[str]:
    lineage = release.read(LINEAGE)
    yield from (f"{LINEAGE} says nothing of {key}" for key in _LINEAGE_KEYS if not lineage.get(key))


CHECKS: Mapping[str, Callable[[Opened], Iterator[str]]] = {
    "model": _model,
    "header": _header,
    "lock": _lock,
    "thresholds": _thresholds,
    "verdict": _verdict,
    "identity": _identity,
    "scorecards": _scorecards,
    "suites": _suites,
    "lineage": _lineage,
}
"""Each gives what does not hold, a line a finding."""

PROMISES: Mapping[str, str] = {
    "model": "one GGUF file, with the sha256 that was judged",
    "header": "a GGUF header that can be read, and a chat template that renders",
    "lock": "the verdict stands on this lock, and nobody edited it",
    "thresholds": "the gates are those that were locked, and each was judged",
    "verdict": "PASS, and its numbers bear it out",
    "identity": "the verdict is about exactly these bytes",
    "scorecards": "for exactly these bytes, and not empty",
    "suites": "what the suites ask is what was locked",
    "lineage": "base, data, code and libraries are named",
}
"""What holds where a check finds nothing."""
