"""What `harness gate` and `harness check` draw: a verdict as it stands today, and what rules can see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.console import GLYPHS, print_rules
from harness.text import visible

if TYPE_CHECKING:
    from rich.console import Console

    from harness.evals.curve import Curve
    from harness.evals.explain import Explanation, Group
    from harness.jobs.gating import Standing

KINDS = {
    "slice": "wrong by slice", "confusion": "gold → answer", "error_class": "how it is wrong", "error": "errors",
}  # fmt: skip


def print_standing(
    console: Console, document: Mapping[str, Any], found: Standing, *, explain: bool = False
) -> None:
    """The rules, what decides, what has changed and who has waived what; with `explain` where the wrong items are."""
    print_rules(console, dict(document))
    for change in found.stale:
        _say(console, f"stale    {change}")
    for waiver in found.waivers:
        _say(console, f"waiver   {waiver}")
    if found.kept:
        _say(console, f"as judged, not again: {'; '.join(found.kept)}")
    if explain:
        _print_worst(console, found)
        for explanation in found.explanations:
            _print_explanation(console, explanation)
    if found.comparison is not None:
        from harness.console_compare import print_comparison

        _say(console, "")
        print_comparison(console, found.comparison)
    _say(console, f"\n{document['stage']}: {GLYPHS[document['verdict']]}")


def print_curves(console: Console, recipe: str, curves: Sequence[Curve]) -> None:
    """A line a rule, with the slice where it sees least, and the chances of PASS and FAIL by the truth."""
    from harness.evals.curve import describe_assumptions

    _say(console, f"{recipe}: what its rules can see; {describe_assumptions()}")
    for curve in curves:
        _say(console, f"\n{curve.rule}  ({curve.suite})")
        _say(console, f"  {_size(curve)}")
        _say(console, f"  {_power(curve)}")
        if curve.points:
            _print_points(console, curve)
        if curve.acknowledge:
            _say(console, f"  acknowledged: {curve.acknowledge}")
    _say(console, "")


def _size(curve: Curve) -> str:
    where = "" if curve.slice == "all" else f"least sure of {curve.slices}: {curve.slice}, "
    units = f" in {curve.units} units, worth about {curve.worth}" if curve.units < curve.n else ""
    return f"{where}{curve.n} items{units}; alpha {curve.alpha:.3g}, {curve.design}"


def _power(curve: Curve) -> str:
    if not curve.can_pass:
        return f"can never PASS on these records{f'; {curve.remark}' if curve.remark else ''}"
    parts = [] if curve.detectable is None else [f"passes 4 times in 5 from {curve.detectable:.3f} on"]
    if curve.needed is not None and curve.at is not None:
        parts.append(f"at {curve.at:.3f} that takes {curve.needed:,} independent items")
    if curve.is_too_fine:
        parts.append("the margin is finer than the records can show")
    return "; ".join([*parts, *([curve.remark] if curve.remark else [])]) or "no curve is known beforehand"


def _print_points(console: Console, curve: Curve) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2))
    for name in ("if the truth is", "P(PASS)", "P(FAIL)", "mean items"):
        table.add_column(name, justify="right")
    for point in curve.points:
        table.add_row(
            f"{point.rate:+.3f}" if "versus" in curve.rule or "than" in curve.rule else f"{point.rate:.3f}",
            f"{point.pass_frac:.3f}", f"{point.fail_frac:.3f}", f"{point.mean_n:.0f}",
        )  # fmt: skip
    console.print(table)


def _print_worst(console: Console, found: Standing) -> None:
    worst = found.worst
    if worst is None:
        return
    where = "" if worst.slice == "all" else f" · {worst.slice}"
    needed = f"; about {worst.needed:,} more items would settle it" if worst.needed else ""
    _say(console, f"\nworst: {worst.rule}{where}: {worst.reason}{needed}")


def _print_explanation(console: Console, found: Explanation) -> None:
    _say(console, f"\n{found.suite}: {found.failures} of {found.n} items are wrong")
    for kind, title in KINDS.items():
        groups = [group for group in found.groups if group.kind == kind]
        if groups:
            _say(console, f"  {title}")
        for group in groups:
            _say(console, f"    {_group(group)}")


def _group(group: Group) -> str:
    of = "" if group.n is None else f" of {group.n}"
    lift = "" if group.lift is None else f", {group.lift:.1f} times the usual"
    return f"{group.failures:>4}{of:<8} {group.name}{lift}  ({', '.join(group.ids)})"


def _say(console: Console, text: str) -> None:
    console.print(visible(text), markup=False, highlight=False, soft_wrap=True)
