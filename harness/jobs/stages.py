"""One stage of a candidate: the same items, scored, summed up and judged."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.data.records import Record
from harness.edge.timing import engine_latencies_ms
from harness.evals.calibrate import Calibration, fit_calibration, needs_calibration
from harness.evals.gate import Evidence, Planned, applies, combine, judge
from harness.evals.ledger import Attempt
from harness.evals.repeat import Noise
from harness.evals.results import RuleVerdict, Sample, Scorecard, State, Verdict
from harness.evals.rules.edge import PERCENTILES, requests_needed
from harness.evals.rules.evidence import noise_floor
from harness.evals.rules.sequential import SequentialGate, can_stop_early
from harness.evals.run import Work, build_requests, evaluate
from harness.evals.samples import read_samples
from harness.evals.scorecard import find_reading, make_scorecard, read_noise
from harness.evals.waivers import apply_waivers, read_waivers
from harness.files import read_json, write_json
from harness.jobs.judging import Judges
from harness.jobs.orders import Loaded, whole_suite
from harness.jobs.progress import Progress
from harness.jobs.seals import seal, sources_of
from harness.models.base import ChoiceRequest, Model, Request
from harness.models.cache import uncached
from harness.specs.gate import Gate
from harness.specs.suite import CHOOSES_LABEL

OpenModel = Callable[[], Model]


class Stages:
    """The stages of one run, on disk below `folder/stages`."""

    def __init__(self, folder: Path, loaded: Loaded, progress: Progress) -> None:
        self._folder = folder / "stages"
        self._loaded = loaded
        self._progress = progress
        self._judges = Judges(on_progress=progress.note)
        self._attempt: Attempt | None = None

    def hold(self, attempt: Attempt) -> None:
        """Holds every stage after the base to the error that this attempt on the items may spend."""
        self._attempt = attempt

    def gates(self, stage: str) -> tuple[Gate, ...]:
        """The recipe's rules, with the alpha that the candidate may spend; the base is no candidate."""
        gates = self._loaded.recipe.gates
        return gates if self._attempt is None or stage == "base" else self._attempt.hold(gates)

    def verdict(self, stage: str) -> Verdict | None:
        """The verdict on disk with what is waived today, if it stands on today's lock; else None."""
        path = self._folder / stage / "verdict.json"
        if not path.exists():
            return None
        found = Verdict.from_json(read_json(path))
        return self._waive(found) if found.lock == self._loaded.lock["digest"] else None

    def _waive(self, verdict: Verdict) -> Verdict:
        waivable = [gate.name for gate in self._loaded.recipe.gates if not gate.binding]
        return apply_waivers(verdict, read_waivers(self._folder.parent), waivable, combine)

    def samples(self, stage: str, suite: str) -> list[Sample]:
        return read_samples(self._folder / stage / suite / "samples.jsonl")

    def run(
        self,
        stage: str,
        identity: str,
        open_model: OpenModel,
        *,
        parent: str | None = None,
        size_bytes: int | None = None,
        gguf: Path | None = None,
        extra_rules: Callable[[], Sequence[RuleVerdict]] = tuple,
    ) -> tuple[Verdict, bool]:
        """The stage's verdict, and whether it was there already.

        `parent` is the stage whose prompts must have been the same, token by token. `gguf` is the stage's file, for a
        device whose latency is its engine's.
        """  # fmt: skip
        found = self.verdict(stage)
        if found and found.identity == identity:
            return found, True
        model = open_model()
        try:
            samples = {name: self._score(stage, name, model) for name in self._loaded.suites}
            calibrations = {name: self._calibrate(stage, name, model) for name in self._loaded.suites}
            latencies = self._latencies(stage, model, gguf)
        finally:
            model.close()
            self._judges.close()
        extra = extra_rules()  # may also measure what a rule of the recipe asks for
        verdict = self._judge(stage, identity, samples, calibrations, latencies, size_bytes)
        rules = [*verdict.rules, *self._parity(parent, samples), *extra, *self._attempts(stage)]
        verdict = self._with_rules(verdict, rules)
        self._publish(verdict)
        return self._waive(verdict), False

    def score_dev(self, name: str, model: Model) -> tuple[float, float]:
        """Accuracy and mean confidence in the gold label on the first suite's development split, which has records."""
        suite = self._loaded.first
        work = replace(self._work(f"dev/{name}", suite, "dev"), measures=False)
        samples = evaluate(
            model, work, self._folder / "dev" / name / "samples.jsonl",
            on_event=self._progress.event, should_stop=self._progress.should_stop,
        )  # fmt: skip
        gold = [sum((s.label_probs or {}).get(label, 0.0) for label in s.gold) for s in samples]
        return sum(s.score for s in samples) / len(samples), sum(gold) / len(samples)

    def dev_scorecard(self, name: str, suite: str, model: Model) -> Scorecard:
        """A model's scorecard on a suite's development split: it steers, and judges nothing."""
        work = replace(self._work(f"dev/{name}", suite, "dev"), measures=False)
        samples = evaluate(
            model, work, self._folder / "dev" / name / suite / "samples.jsonl",
            on_event=lambda *_, **__: None, should_stop=self._progress.should_stop,
        )  # fmt: skip
        is_labelled = work.suite.task in CHOOSES_LABEL
        return make_scorecard(
            suite,
            work.stage,
            model.identity.digest,
            samples,
            slices=work.suite.slices,
            is_labelled=is_labelled,
        )

    def _work(self, stage: str, suite: str, split: str) -> Work:
        splits = self._loaded.splits[suite]
        records, train = splits[split], splits["train"]  # type: ignore[index]
        return Work(
            stage, self._loaded.suites[suite], self._loaded.labels[suite], tuple(records), tuple(train),
            judge=self._judges.of(self._loaded.suites[suite]),
        )  # fmt: skip

    def _rules(self, stage: str, name: str) -> list[Gate]:
        """The rules that judge the stage on the suite."""
        gates = [gate for gate in self.gates(stage) if applies(gate, stage)]
        return [gate for gate in gates if (gate.suite or self._loaded.first) == name]

    def _planned(self, name: str) -> list[Planned]:
        return [_plan(record) for record in self._loaded.splits[name]["eval"]]

    def _population(self, name: str) -> list[Planned]:
        """The whole suite, where a rule is about its own records and no others."""
        if not any(gate.population == "frozen" for gate in self._loaded.recipe.gates):
            return []
        options = read_json(self._folder.parent / "manifest.json")["options"]
        return [_plan(record) for record in whole_suite(options, name)]

    def _earlier(self, stage: str, name: str) -> dict[str, list[Sample]]:
        asked = {gate.versus for gate in self.gates(stage) if gate.versus}
        return {earlier: self.samples(earlier, name) for earlier in asked if earlier != stage}

    def _watch(self, stage: str, name: str, noise: float = 0.0) -> SequentialGate | None:
        """What may end the scoring early; None where a rule of this stage or a later one needs every item."""
        rules, later = self._rules(stage, name), self._loaded.recipe.gates
        if not can_stop_early(rules) or any(gate.versus == stage for gate in later):
            return None
        sequential = [gate for gate in rules if gate.design == "sequential"]
        return SequentialGate(
            sequential, self._planned(name), earlier=self._earlier(stage, name), noise=noise
        )

    def _noise(self, stage: str, name: str) -> Noise | None:
        found = read_noise(self._folder / stage / name)
        return None if found is None else Noise(**found)

    def _evaluate(self, stage: str, name: str, model: Model) -> list[Sample]:
        """The samples, as many as the rules need; more of them where the noise floor asks for more certainty."""
        work, watch = self._work(stage, name, "eval"), self._watch(stage, name)
        path = self._folder / stage / name / "samples.jsonl"
        if any(gate.design == "sequential" for gate in self._rules(stage, name)):
            write_json(path.with_name("plan.json"), [list(item) for item in self._planned(name)])
        event, should_stop = self._progress.event, self._progress.should_stop
        samples = evaluate(model, work, path, on_event=event, should_stop=should_stop, watch=watch)
        if len(samples) == len(work.records):
            return samples
        floor = noise_floor(Evidence(samples, 1.0, noise=self._noise(stage, name)))
        stricter = self._watch(stage, name, floor)
        if stricter is not None and not stricter.add(samples):
            samples = evaluate(model, work, path, on_event=event, should_stop=should_stop, watch=stricter)
        return samples

    def _calibrate(self, stage: str, name: str, model: Model) -> Calibration | None:
        """What the calibration split gives, where a rule asks for it and there is one; kept as calibration.json."""
        rules, work = self._rules(stage, name), self._work(stage, name, "calibration")
        if not needs_calibration(rules) or not work.records:
            return None
        folder = self._folder / stage / name
        work = replace(work, measures=any(gate.confidence for gate in rules))
        samples = evaluate(
            model, work, folder / "calibration" / "samples.jsonl",
            on_event=lambda *_, **__: None, should_stop=self._progress.should_stop,
        )  # fmt: skip
        found = fit_calibration(samples, rules, suite=name, judged=self._planned(name))
        write_json(folder / "calibration.json", found.to_json())
        return found

    def _score(self, stage: str, name: str, model: Model) -> list[Sample]:
        folder = self._folder / stage / name
        work = self._work(stage, name, "eval")
        samples = self._evaluate(stage, name, model)
        card = make_scorecard(
            name, stage, model.identity.digest, samples, slices=work.suite.slices,
            is_labelled=work.suite.task in CHOOSES_LABEL, noise=read_noise(folder),
        )  # fmt: skip
        write_json(folder / "scorecard.json", card.to_json())
        top = find_reading(card, "accuracy")
        if top:
            self._progress.event(
                "scorecard", stage=stage, suite=name, n=card.n, score=top.score, low=top.low, high=top.high,
                path=str(folder / "scorecard.json"),
            )  # fmt: skip
        return samples

    def _latencies(self, stage: str, model: Model, gguf: Path | None) -> list[float]:
        """Milliseconds of single requests, one after another; empty where no rule asks for them."""
        asked = [gate for gate in self.gates(stage) if gate.metric in PERCENTILES and applies(gate, stage)]
        if not asked:
            return []
        requests = max(map(requests_needed, asked))
        path = self._folder / stage / "latency.json"
        device, identity = self._loaded.recipe.device, model.identity
        asks_engine = gguf is not None and device.latency == "engine"
        key = {"identity": identity.digest, "by": device.latency if asks_engine else "library"}
        if path.exists() and (kept := read_json(path)) == {**key, "ms": kept["ms"]}:
            return [float(value) for value in kept["ms"]]
        work = self._work(stage, self._loaded.first, "eval")
        some = build_requests(replace(work, records=work.records[: requests + 1]))
        if asks_engine:
            assert gguf is not None
            found = engine_latencies_ms(gguf, identity.weights, some, threads=device.threads)
        else:
            found = [_time_one(uncached(model), request) for request in some][1:]  # the first one warms up
        write_json(path, {**key, "ms": found})
        return found

    def _judge(
        self, stage: str, identity: str, samples: Mapping[str, list[Sample]],
        calibrations: Mapping[str, Calibration | None], latencies: list[float], size_bytes: int | None,
    ) -> Verdict:  # fmt: skip
        gates, lock = self.gates(stage), self._loaded.lock["digest"]
        evidence = {
            name: Evidence(
                found, self._loaded.suites[name].max_error_frac, latencies, size_bytes, self._earlier(stage, name),
                self._memory_mb(stage, identity), self._planned(name), calibrations[name], self._noise(stage, name),
                self._population(name),
            )
            for name, found in samples.items()
        }  # fmt: skip
        return judge(stage, identity, lock, gates, evidence, self._loaded.first)

    def _memory_mb(self, stage: str, identity: str) -> float | None:
        """Peak memory of the process that ran the file beside its parent; None where it was not measured."""
        path = self._folder / stage / "fidelity.json"
        found = read_json(path) if path.exists() else {}
        return float(found["child_peak_mb"]) if found.get("identity") == identity else None

    def _parity(self, parent: str | None, samples: Mapping[str, list[Sample]]) -> list[RuleVerdict]:
        if parent is None:
            return []
        return [
            parity_rule(name, parent, self.samples(parent, name), found) for name, found in samples.items()
        ]

    def _attempts(self, stage: str) -> list[RuleVerdict]:
        if self._attempt is None or stage == "base":
            return []
        return [self._attempt.rule(self._loaded.first, self._loaded.recipe.gates)]

    def _with_rules(self, verdict: Verdict, rules: Sequence[RuleVerdict]) -> Verdict:
        return Verdict(verdict.stage, verdict.identity, verdict.lock, combine(rules), tuple(rules))

    def _publish(self, verdict: Verdict) -> None:
        path = self._folder / verdict.stage / "verdict.json"
        write_json(path, verdict.to_json())
        run = self._folder.parent
        seal(run, verdict.stage, sources_of(read_json(run / "manifest.json")["options"]))
        worst = worst_rule(verdict)
        self._progress.event(
            "verdict", stage=verdict.stage, verdict=verdict.verdict.value, path=str(path),
            worst=f"{worst.rule} · {worst.slice}: {worst.reason}" if worst else None,
        )  # fmt: skip


def _plan(record: Record) -> Planned:
    return Planned(record.id, record.unit, record.targets, record.slices)


def worst_rule(verdict: Verdict) -> RuleVerdict | None:
    """The rule and slice that stand in the way: failures first, then the largest shortfall; None for a PASS."""
    blocking = [rule for rule in verdict.rules if rule.verdict in (State.FAIL, State.INCONCLUSIVE)]

    def badness(rule: RuleVerdict) -> tuple[bool, float]:
        gap = abs((rule.score or 0.0) - (rule.threshold or 0.0))
        return rule.verdict is State.FAIL, gap

    return max(blocking, key=badness, default=None)


def parity_rule(suite: str, parent: str, before: Sequence[Sample], now: Sequence[Sample]) -> RuleVerdict:
    """Whether the stage was fed the very token ids that its parent was fed, on every item that both scored.

    A stage that could stop early has scored the first items of one order, so one of the two holds all of the other's.
    """
    wanted, seen = {s.id: s.prompt_digest for s in before}, {s.id for s in now}
    if wanted and wanted.keys() < seen:
        now = [sample for sample in now if sample.id in wanted]
    differ = [sample.id for sample in now if wanted.get(sample.id) != sample.prompt_digest]
    same = len(now) - len(differ)
    state = State.PASS if now and not differ else State.FAIL
    reason = f"same token ids on {same} of {len(now)} items"
    if differ:
        reason += f"; first difference: {differ[0]}"
    return RuleVerdict(
        rule=f"token ids equal those of {parent}", suite=suite, metric="token_parity", slice="all", n=len(now),
        score=same / len(now) if now else None, low=None, high=None, threshold=1.0, verdict=state, reason=reason,
    )  # fmt: skip


def _time_one(model: Model, request: Request) -> float:
    began = time.perf_counter()
    if isinstance(request, ChoiceRequest):
        list(model.score_choices([request]))
    else:
        list(model.generate([request]))
    return (time.perf_counter() - began) * 1000.0
