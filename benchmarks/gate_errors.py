"""How often the gate is wrong, by simulation, beside what it promises.

    python benchmarks/gate_errors.py                 10,000 runs a cell, two to four minutes
    python benchmarks/gate_errors.py --runs 2000     a quick look

Prints a table and writes benchmarks/results/gate_errors.json. Where a figure was published with the specification,
it stands beside the measured one, and the exit code is 1 when they differ by more than 3 Monte Carlo standard errors
and the rounding of the published figure, or when an error that is promised is exceeded by as much.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtr

from harness.evals.rules.macro import macro_bounds
from harness.evals.rules.rates import CountedPart
from harness.specs.gate import Gate
from harness.stats.conformal import conformal_rank, coverage_band
from harness.stats.f1 import Confusion, f1_at_least_p, f1_to_overlap, ratio_claim
from harness.stats.fairness import gap_gate
from harness.stats.group_sequential import obrien_fleming
from harness.stats.paired import noninferiority_p, tango_z
from harness.stats.power import cuts
from harness.stats.proportions import Count, at_least_p
from harness.stats.sequential import Claim, paired_claim, simulate
from harness.stats.survey import effective_lower, effective_sample, effective_upper
from harness.stats.tails import normal_cdf

ALPHA = 0.05
PUBLISHED_RUNS = 3000
"""The published figures were simulated too, with at least as many runs; their error counts as well as ours."""
RESULTS = Path(__file__).parent / "results" / "gate_errors.json"
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Cell:
    """One rule in one world, over all runs."""

    world: str
    rule: str
    truth: float
    passes: float
    fails: float
    mean_n: float
    promise: str
    """`pass`, `fail` or `both`: errors that must stay under alpha; empty where the truth makes none an error."""
    published: tuple[float | None, float | None, float | None] = (None, None, None)
    """PASS and FAIL in percent, mean n; None where the specification has no figure."""


def main() -> int:
    """Measures all cells; 1 where one of them breaks its promise or differs from its published figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    start, rows = time.perf_counter(), []
    print(f"{'world':<34} {'rule':<31} {'truth':>6} {'PASS %':>8} {'FAIL %':>8} {'mean n':>7}  published")
    worlds = (
        rates, grid, pairs, bounded_scores, bounded_pairs, clustered, f1_rules, macro_rules, gaps, prediction_sets,
        confidence_gaps,
    )  # fmt: skip
    for world in worlds:
        for cell in world(np.random.default_rng(options.seed), options.runs):
            rows.append({**asdict(cell), "wrong": complaints(cell, options.runs)})
            print(line(cell, rows[-1]["wrong"]), flush=True)
    seconds = time.perf_counter() - start
    broken = [row for row in rows if row["wrong"]]
    document = {"runs": options.runs, "seed": options.seed, "alpha": ALPHA, "seconds": round(seconds, 1)}
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps({**document, "broken": len(broken), "cells": rows}, indent=1) + "\n")
    print(f"{len(rows)} cells of {options.runs} runs in {seconds:.0f} s; {len(broken)} out of bounds")
    return 1 if broken else 0


def rates(rng: np.random.Generator, runs: int) -> Iterator[Cell]:
    """A rate of at least .80 with 400 items."""
    world, n = "rate ≥ .80, 400 items", 400
    looks, fixed, claim = obrien_fleming(n, 0.80), cuts(n, 0.80), Claim(0.80, n)
    peeks = [(k, cuts(k, 0.80)) for k in range(10, n + 1, 10)]
    published: dict[float, list[tuple[float | None, float | None, float | None]]] = {
        0.70: [(0, 99.8, 400), (0, 99.8, 177), (0, 99.7, 188)],
        0.75: [(0, 77, 400), (0, 76, 300), (0, 76, 307)],
        0.80: [(4.3, 4.8, 400), (4.9, 4.9, 391), (4.9, 4.5, 391)],
        0.85: [(82, 0, 400), (81, 0, 291), (78, 0, 286)],
        0.90: [(100, 0, 400), (100, 0, 157), (100, 0, 145)],
    }
    for truth, figures in published.items():
        right = rng.random((runs, n)) < truth
        hits = right.cumsum(axis=1)
        planned: dict[str, list[Any]] = {
            "Clopper-Pearson": [(n, fixed.pass_from, fixed.fail_to)],
            "O'Brien-Fleming, 20 looks": [tuple(look) for look in looks],
        }
        for (rule, plan), figure in zip(planned.items(), figures, strict=False):
            yield _cell(world, rule, truth, *_watch(hits, plan), _promise(truth, 0.80), figure)
        ends = simulate(claim, right.astype(float))
        yield _cell(
            world, "betting", truth, ends.passes, ends.fails, ends.n, _promise(truth, 0.80), figures[2]
        )
        if truth == 0.80:
            ends_of_peeking = _watch(hits, [(k, cut.pass_from, cut.fail_to) for k, cut in peeks])
            yield _cell(world, "peeking every 10 (invalid)", truth, *ends_of_peeking, "", (19.7, 19.4, None))


def grid(rng: np.random.Generator, runs: int) -> Iterator[Cell]:
    """Errors at the threshold itself, where they are largest."""
    for threshold in (0.5, 0.7, 0.8, 0.9, 0.95, 0.99):
        for n in (30, 100, 400, 1000):
            world, right = f"rate ≥ {threshold:g}, {n} items", rng.random((runs, n)) < threshold
            hits, fixed = right.cumsum(axis=1), cuts(n, threshold)
            exact = _watch(hits, [(n, fixed.pass_from, fixed.fail_to)])
            yield _cell(world, "Clopper-Pearson", threshold, *exact, "both")
            looks = [tuple(look) for look in obrien_fleming(n, threshold)]
            yield _cell(world, "O'Brien-Fleming, 20 looks", threshold, *_watch(hits, looks), "both")
            ends = simulate(Claim(threshold, n), right.astype(float))
            yield _cell(world, "betting", threshold, ends.passes, ends.fails, ends.n, "both")


def pairs(rng: np.random.Generator, runs: int) -> Iterator[Cell]:
    """No worse than the baseline by .05, with 400 pairs of which 15 % are discordant."""
    world, n, margin, discordance = "no worse by .05, 400 pairs", 400, 0.05, 0.15
    published: dict[float, tuple[Any, Any]] = {
        -0.10: ((None, 87, 400), (None, 82, 285)),
        -0.05: ((5.0, None, 400), (4.6, None, 390)),
        0.00: ((82, None, 400), (77, None, 293)),
        0.03: ((99.6, None, 400), (99, None, 204)),
    }
    for truth, (of_tango, of_betting) in published.items():
        u = rng.random((runs, n))
        wins = (discordance + truth) / 2
        scores = np.where(u < wins, 1.0, np.where(u < discordance, -1.0, 0.0))
        b, c = (scores < 0).sum(axis=1), (scores > 0).sum(axis=1)
        for rule, test, figure in (
            ("Tango, plain", _plain_tango(n, margin), of_tango),
            ("the gate's paired rule", _gate_pairs(n, margin), (None, None, None)),
        ):
            answers = np.array([test(*table) for table in zip(b.tolist(), c.tolist(), strict=True)])
            # Plain Tango is shown for comparison: its error is only nearly alpha.
            promise = "" if rule == "Tango, plain" else _promise(truth, -margin)
            ends = answers[:, 0] <= ALPHA, answers[:, 1] <= ALPHA, np.full(runs, n)
            yield _cell(world, rule, truth, *ends, promise, figure)
        found = simulate(paired_claim(margin, n, discordance), scores)
        yield _cell(world, "betting", truth, *found, _promise(truth, -margin), of_betting)


def bounded_scores(rng: np.random.Generator, runs: int) -> Iterator[Cell]:
    """A mean score of at least the threshold, for scores with most of their mass at one end."""
    for threshold, n in ((0.95, 100), (0.8, 100), (0.8, 400)):
        world, weight = f"skewed score ≥ {threshold:g}, {n} items", 0.5
        scores = rng.beta(weight * threshold, weight * (1 - threshold), size=(runs, n))
        error = scores.std(axis=1, ddof=1) / math.sqrt(n)
        t = (scores.mean(axis=1) - threshold) / error
        fails, passes = stdtr(n - 1, t) <= ALPHA, stdtr(n - 1, -t) <= ALPHA
        yield _cell(world, "Student's t (invalid)", threshold, passes, fails, np.full(runs, n), "")
        yield _cell(world, "betting", threshold, *simulate(Claim(threshold, n), scores), "both")


def bounded_pairs(rng: np.random.Generator, runs: int) -> Iterator[Cell]:
    """No worse than the baseline by .05, with 200 pairs of partial credit that mostly agree."""
    world, n, margin = "partial credit no worse by .05", 200, 0.05
    for truth in (-0.10, -0.05, 0.0):
        moved = rng.random((runs, n)) < 0.25
        scores = np.clip(np.where(moved, rng.normal(4 * truth, 0.3, (runs, n)), 0.0), -1.0, 1.0)
        scores += truth - scores.mean()  # clipping moves the mean by a little
        found = simulate(paired_claim(margin, n, 0.15), np.clip(scores, -1.0, 1.0))
        yield _cell(world, "betting", truth, *found, _promise(truth, -margin))


def clustered(rng: np.random.Generator, runs: int) -> Iterator[Cell]:
    """80 documents of 5 items with an intra-cluster correlation of .3, and 20 that are nearly all right."""
    for threshold, correlation, clusters, published in ((0.80, 0.3, 80, 12.9), (0.95, 0.6, 20, None)):
        world = f"rate ≥ {threshold:g}, {clusters} documents of 5"
        strength = (1 - correlation) / correlation
        rates = rng.beta(threshold * strength, (1 - threshold) * strength, size=(runs, clusters, 1))
        right = (rng.random((runs, clusters, 5)) < rates).astype(float)
        n, hits = 5 * clusters, right.sum(axis=(1, 2))
        fixed = cuts(n, threshold)
        naive = hits >= fixed.pass_from, hits <= fixed.fail_to, np.full(runs, n)
        figure = (published, None, None)
        yield _cell(world, "items as independent (invalid)", threshold, *naive, "", figure)
        yield _cell(world, "the gate's effective sample", threshold, *_effective(right, threshold), "both")
        ends = simulate(Claim(threshold, clusters), right.mean(axis=2))
        yield _cell(
            world, "betting on documents", threshold, *ends, "both", (3.6 if published else None, None, None)
        )


def f1_rules(rng: np.random.Generator, runs: int) -> Iterator[Cell]:
    """F1 of at least .80: items on their own, and 150 documents that are easy or hard."""
    overlap = f1_to_overlap(0.80)
    draws = rng.multinomial(300, [0.5 * overlap, 0.3 * (1 - overlap), 0.2 * (1 - overlap), 0.5], size=runs)
    p = np.array([_f1_tails(*row[:3]) for row in draws.tolist()])
    ends = p[:, 0] <= ALPHA, p[:, 1] <= ALPHA, np.full(runs, 300)
    yield _cell("F1 ≥ .80, 300 items", "exact", 0.80, *ends, "both")
    sizes = rng.integers(1, 6, size=(runs, 150))
    easy = rng.random((runs, 150)) < 0.5
    hits = rng.binomial(sizes, np.where(easy, overlap + 0.3, overlap - 0.3))
    scores = 2 * hits - 0.80 * (sizes + hits)
    found = simulate(ratio_claim(0.80, 10, 150, prior_variance=0.02), scores.astype(float))
    yield _cell("F1 ≥ .80, 150 documents", "betting on documents", 0.80, *found, "both")


def macro_rules(rng: np.random.Generator, runs: int) -> Iterator[Cell]:
    """The mean recall over three labels with 120, 40 and 12 items, at the threshold."""
    sizes, threshold = {"a": 120, "b": 40, "c": 12}, 0.75
    gate = Gate.model_validate({"metric": "recall", "average": "macro", "at_least": threshold})
    passes, fails = np.zeros(runs, bool), np.zeros(runs, bool)
    for run in range(runs):
        parts = [_label_part(name, int(rng.binomial(size, threshold)), size) for name, size in sizes.items()]
        bounds = macro_bounds(gate, parts, 172, ALPHA, ALPHA)
        passes[run], fails[run] = (bounds.low or 0.0) >= threshold, (bounds.high or 1.0) < threshold
    yield _cell(
        "mean recall of 3 labels ≥ .75",
        "the gate's macro rule",
        threshold,
        passes,
        fails,
        np.full(runs, 172),
        "both",
    )


def gaps(rng: np.random.Generator, runs: int) -> Iterator[Cell]:
    """No group better than another by more than .10, with groups of 400 or 150."""
    cap = 0.10
    for names, size in (("ab", 400), ("abc", 400), ("abc", 150)):
        for truth in (0.0, 0.10, 0.20):
            rates = {name: 0.85 - (truth if name == "a" else 0.0) for name in names}
            hits = {name: rng.binomial(size, rate, size=runs) for name, rate in rates.items()}
            said = [
                _gap_decision(tuple(int(hits[name][run]) for name in names), size, cap) for run in range(runs)
            ]
            decisions = np.array([decision or "" for decision in said])
            ends = decisions == "PASS", decisions == "FAIL", np.full(runs, size * len(names))
            world = f"gap ≤ .10, {len(names)} groups of {size}"
            # A gap at the cap itself is no gap beyond it, and PASS would say that it is under it.
            promise = "both" if truth == cap else "fail" if truth < cap else "pass"
            yield _cell(world, "pairwise Newcombe, Holm", truth, *ends, promise)


def prediction_sets(rng: np.random.Generator, runs: int) -> Iterator[Cell]:
    """Sets made for 90 %, 300 calibration and 300 gate items, judged at 85 %.

    All is well, so a FAIL is an error; and so is a PASS where the threshold that was drawn covers less in truth.
    """
    n, target, floor = 300, 0.90, 0.85
    rank = conformal_rank(n, 1.0 - target)
    true_coverage = rng.beta(rank, n + 1 - rank, size=runs)
    covered = rng.binomial(n, true_coverage)
    band, cut = coverage_band(n, n, 1.0 - target, 1.0 - 2 * ALPHA), cuts(n, floor)
    assert band is not None
    fails = (covered / n < band.low) | (covered <= cut.fail_to)
    passes, used = ~fails & (covered >= cut.pass_from), np.full(runs, n)
    world = "sets for .90 cover ≥ .85"
    yield _cell(world, "coverage rule", target, passes, fails, used, "fail")
    false_passes = passes & (true_coverage < floor)
    yield _cell(world, "its passes that are wrong", target, false_passes, fails & False, used, "pass")


def confidence_gaps(rng: np.random.Generator, runs: int) -> Iterator[Cell]:
    """Mean confidence minus accuracy within ±.05, with 600 items of confidence .6 to 1."""
    n, cap = 600, 0.05
    for truth in (0.0, 0.05, 0.10):
        confidence = rng.uniform(0.6, 1.0, (runs, n))
        right = rng.random((runs, n)) < confidence - truth
        difference = confidence - right
        below = simulate(Claim(cap, n, ALPHA, ALPHA, -1.0, 1.0), difference)
        above = simulate(Claim(-cap, n, ALPHA, ALPHA, -1.0, 1.0), difference)
        passes, fails = below.fails & above.passes, below.passes | above.fails
        promise = "both" if truth == cap else "fail" if truth < cap else "pass"
        yield _cell(
            "over-confidence within ±.05",
            "betting, both sides",
            truth,
            passes,
            fails,
            np.full(runs, n),
            promise,
        )


def complaints(cell: Cell, runs: int) -> list[str]:
    """What is out of bounds, in words."""
    wrong = []
    for name, value in (("pass", cell.passes), ("fail", cell.fails)):
        if cell.promise in (name, "both") and value > ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs):
            wrong.append(f"false {name.upper()} {value:.2%} over {ALPHA:.0%}")
    for name, value, figure in zip(("PASS", "FAIL"), (cell.passes, cell.fails), cell.published, strict=False):
        if figure is not None and abs(100 * value - figure) > _slack(figure, runs):
            wrong.append(f"{name} {100 * value:.2f} %, published {figure:g} %")
    if cell.published[2] is not None and abs(cell.mean_n - cell.published[2]) > 0.5 + 3 * 120 / math.sqrt(
        runs
    ):
        wrong.append(f"mean n {cell.mean_n:.1f}, published {cell.published[2]:g}")
    return wrong


def line(cell: Cell, wrong: list[str]) -> str:
    """The cell as a line of the table."""
    shown = "  ".join("-" if figure is None else f"{figure:g}" for figure in cell.published)
    figures = shown if any(figure is not None for figure in cell.published) else ""
    numbers = f"{100 * cell.passes:8.2f} {100 * cell.fails:8.2f} {cell.mean_n:7.1f}"
    return (
        f"{cell.world:<34} {cell.rule:<31} {cell.truth:6g} {numbers}  {figures} {'; '.join(wrong)}".rstrip()
    )


def _slack(figure: float, runs: int) -> float:
    """3 standard errors in percent, and half a unit of the last digit published."""
    share = min(max(figure / 100, 1 / runs), 1 - 1 / runs)
    digit = 0.05 if figure != round(figure) or figure < 10 else 0.5
    return digit + 300 * math.sqrt(share * (1 - share) * (1 / runs + 1 / PUBLISHED_RUNS))


def _cell(
    world: str,
    rule: str,
    truth: float,
    passes: Array,
    fails: Array,
    used: Array,
    promise: str,
    published: tuple[float | None, float | None, float | None] = (None, None, None),
) -> Cell:
    means = float(passes.mean()), float(fails.mean()), float(used.mean())
    return Cell(world, rule, truth, *means, promise, published)


def _promise(truth: float, threshold: float) -> str:
    """Which verdict is an error: at the threshold itself, either."""
    if math.isclose(truth, threshold):
        return "both"
    return "pass" if truth < threshold else "fail"


def _watch(hits: Array, plan: list[Any]) -> tuple[Array, Array, Array]:
    """The end of each run that is looked at by plan: (n, pass_from, fail_to) a look."""
    runs = len(hits)
    passes, fails, used = np.zeros(runs, bool), np.zeros(runs, bool), np.full(runs, hits.shape[1])
    for n, pass_from, fail_to in plan:
        is_open = ~(passes | fails)
        now_passes = is_open & (hits[:, n - 1] >= pass_from)
        now_fails = is_open & (hits[:, n - 1] <= fail_to)
        used[now_passes | now_fails] = n
        passes, fails = passes | now_passes, fails | now_fails
    return passes, fails, used


def _plain_tango(n: int, margin: float) -> Callable[[int, int], tuple[float, float]]:
    @cache
    def tails(b: int, c: int) -> tuple[float, float]:
        z = tango_z(b, c, n, -margin)
        return normal_cdf(-z), normal_cdf(z)

    return tails


def _gate_pairs(n: int, margin: float) -> Callable[[int, int], tuple[float, float]]:
    @cache
    def tails(b: int, c: int) -> tuple[float, float]:
        return noninferiority_p(b, c, n, margin) or 0.0, noninferiority_p(c, b, n, -margin) or 0.0

    return tails


def _effective(right: Array, threshold: float) -> tuple[Array, Array, Array]:
    runs, clusters, size = right.shape
    units = [str(cluster) for cluster in range(clusters) for _ in range(size)]
    passes, fails = np.zeros(runs, bool), np.zeros(runs, bool)
    for run in range(runs):
        sample = effective_sample(right[run].ravel().tolist(), units, ALPHA)
        assert sample is not None
        passes[run] = effective_lower(sample, ALPHA) >= threshold
        fails[run] = effective_upper(sample, ALPHA) < threshold
    return passes, fails, np.full(runs, clusters * size)


def _label_part(name: str, hits: int, size: int) -> CountedPart:
    counts = [Confusion(1, 0, 0)] * hits + [Confusion(0, 0, 1)] * (size - hits)
    return CountedPart(name, counts, [f"{name}{k}" for k in range(size)])


@cache
def _gap_decision(hits: tuple[int, ...], size: int, cap: float) -> str | None:
    return gap_gate({str(k): Count(count, size) for k, count in enumerate(hits)}, cap).decision


@cache
def _f1_tails(hits: int, false_positives: int, false_negatives: int) -> tuple[float, float]:
    misses, n = false_positives + false_negatives, hits + false_positives + false_negatives
    too_good = f1_at_least_p(Confusion(hits, false_positives, false_negatives), 0.80)
    return too_good, at_least_p(misses, n, 1.0 - f1_to_overlap(0.80))


if __name__ == "__main__":
    sys.exit(main())
