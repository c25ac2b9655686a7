"""How long a bootstrap of group fairness takes, beside fairlearn's.

    python benchmarks/fairness_speed.py                      about a minute
    python benchmarks/fairness_speed.py --fairlearn 2        fewer of fairlearn's replicates

100,000 made-up rows in four groups, four gaps between groups (demographic parity, equal opportunity, equalized odds,
accuracy), 1,000 bootstrap replicates: counting the rows and drawing over the confusion cells, the whole work timed
several times. fairlearn resamples the rows themselves and would take a good part of an hour, so a few of its
replicates are timed in this same run on the same rows, and its time for all of them is EXTRAPOLATED from those; the
time of its MetricFrame without a bootstrap is taken off first. The two are compared by the CPU's time, which a busy
machine doesn't stretch; the limit is on the clock's. On fewer rows both are run in full, and the largest distance
between their intervals is reported.

Writes benchmarks/results/fairness_speed.json and .md. The exit code is 1 where ours takes a second or more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from harness.stats.fairness import GapEstimate, count_cells, largest_gaps

ROWS, REPLICATES, REPEATS, SEED = 100_000, 1000, 7, 20
LIMIT_S = 1.0
SMALL_ROWS, SMALL_REPLICATES = 2000, 200
"""For the comparison of the intervals themselves."""
RESULTS = Path(__file__).parent / "results"
Array = np.ndarray[Any, Any]


class Took(NamedTuple):
    """What a piece of work took, by the clock and of the CPU."""

    wall_s: float
    cpu_s: float


class People(NamedTuple):
    """Truths and answers, yes or no, and the group of each row; shape (rows,)."""

    gold: Array
    answers: Array
    groups: list[str]


def main() -> int:
    """Times both, prints the figures and writes them; 1 where ours is over the limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fairlearn", type=int, default=5, help="replicates of fairlearn's that are timed")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    people = make_people(ROWS)
    ours = [took(lambda: bootstrap(people, REPLICATES)) for _ in range(REPEATS)]
    wall, cpu = [run.wall_s for run in ours], [run.cpu_s for run in ours]
    theirs = time_fairlearn(people, options.fairlearn)
    report = {
        "rows": ROWS, "groups": len(set(people.groups)), "replicates": REPLICATES, "seed": SEED,
        "ours": {"repeats": REPEATS, "wall_s": median(wall), "least_wall_s": min(wall), "most_wall_s": max(wall),
                 "cpu_s": median(cpu)},
        "limit_s": LIMIT_S, "fairlearn": theirs, "ratio_extrapolated": theirs["extrapolated_cpu_s"] / median(cpu),
        "intervals": {"rows": SMALL_ROWS, "fairlearn_replicates": SMALL_REPLICATES,
                      "largest_distance": largest_distance()},
        "machine": machine(),
    }  # fmt: skip
    options.out.mkdir(exist_ok=True, parents=True)
    (options.out / "fairness_speed.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "fairness_speed.md").write_text(page(report))
    print(page(report))
    return 0 if median(wall) < LIMIT_S else 1


def make_people(rows: int) -> People:
    """Four groups of unlike size, of which the last is answered worse."""
    rng = np.random.default_rng(SEED)
    groups = rng.choice(["a", "b", "c", "d"], p=[0.5, 0.25, 0.15, 0.1], size=rows)
    gold = rng.random(rows) < 0.4
    answers = np.where(rng.random(rows) < np.where(groups == "d", 0.75, 0.85), gold, ~gold)
    return People(gold, answers, groups.tolist())


def bootstrap(people: People, replicates: int) -> dict[str, GapEstimate]:
    """From rows to the four gaps with their intervals."""
    return largest_gaps(count_cells(*people), draws=replicates, seed=SEED)


def time_fairlearn(people: People, replicates: int) -> dict[str, Any]:
    """CPU seconds of a few replicates, and what all would take at that pace."""
    frame(make_people(100), 1)  # its imports are not its bootstrap
    plain = took(lambda: frame(people))
    timed = took(lambda: frame(people, replicates))
    each = (timed.cpu_s - plain.cpu_s) / replicates
    return {
        "version": version("fairlearn"), "replicates_timed": replicates, "timed": timed._asdict(),
        "without_bootstrap": plain._asdict(), "replicate_cpu_s": each, "extrapolated_cpu_s": each * REPLICATES,
    }  # fmt: skip


def frame(people: People, replicates: int | None = None) -> Any:
    """fairlearn's MetricFrame of the four rates, with its own bootstrap where replicates are given."""
    from fairlearn.metrics import MetricFrame, false_positive_rate, selection_rate, true_positive_rate
    from sklearn.metrics import accuracy_score

    metrics = {
        "selection": selection_rate, "true_positive": true_positive_rate,
        "false_positive": false_positive_rate, "accuracy": accuracy_score,
    }  # fmt: skip
    more = {} if replicates is None else {"n_boot": replicates, "ci_quantiles": [0.025, 0.975]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MetricFrame(
            metrics=metrics, y_true=people.gold, y_pred=people.answers,
            sensitive_features=people.groups, random_state=SEED, **more,
        )  # fmt: skip


def largest_distance() -> float:
    """The largest distance between an end of our intervals and of fairlearn's, on fewer rows."""
    people = make_people(SMALL_ROWS)
    ours, theirs = bootstrap(people, REPLICATES), frame(people, SMALL_REPLICATES).difference_ci()
    pairs = {
        "demographic_parity": "selection",
        "equal_opportunity": "true_positive",
        "accuracy_gap": "accuracy",
    }
    return max(
        abs(end - float(theirs[side][rate]))
        for gap, rate in pairs.items()
        for side, end in enumerate(ours[gap].interval or ())
    )


def took(work: Callable[[], object]) -> Took:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Took(time.perf_counter() - wall, time.process_time() - cpu)


def machine() -> dict[str, Any]:
    """Where this was measured, and how busy it was."""
    return {
        "cpus": os.cpu_count(), "arch": platform.machine(), "python": platform.python_version(),
        "numpy": np.__version__, "load_1_min": round(os.getloadavg()[0], 1),
    }  # fmt: skip


def page(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    ours, theirs, small = report["ours"], report["fairlearn"], report["intervals"]
    return (
        "# A bootstrap of group fairness\n\n"
        f"{report['rows']:,} made-up rows, {report['groups']} groups, four gaps between groups, "
        f"{report['replicates']:,} replicates. Written by `benchmarks/fairness_speed.py`.\n\n"
        "| | clock, s | CPU, s | how |\n|---|---|---|---|\n"
        f"| ours, from rows to intervals | {ours['wall_s']:.3f} ({ours['least_wall_s']:.3f} to "
        f"{ours['most_wall_s']:.3f}) | {ours['cpu_s']:.3f} | "
        f"median of {ours['repeats']} whole runs; limit {report['limit_s']:g} s by the clock |\n"
        f"| fairlearn {theirs['version']}, one replicate | | {theirs['replicate_cpu_s']:.3f} | "
        f"mean of {theirs['replicates_timed']}, same rows, same run |\n"
        f"| fairlearn, all replicates | | {theirs['extrapolated_cpu_s']:.0f} | **extrapolated** from these |\n\n"
        f"Ratio of fairlearn's extrapolated CPU time to ours: {report['ratio_extrapolated']:,.0f}.\n\n"
        f"The largest distance between an end of our intervals and of fairlearn's on {small['rows']:,} rows "
        f"({small['fairlearn_replicates']} of its replicates, run in full): {small['largest_distance']:.4f}.\n\n"
        f"Machine: {report['machine']['cpus']} CPUs ({report['machine']['arch']}), load "
        f"{report['machine']['load_1_min']} while measuring.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
