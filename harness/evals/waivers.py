"""Rules that a person lets a run pass without: by name, with a reason, until a date, and in sight of everybody.

A waived rule does not block, and is no PASS: it proves nothing, so a verdict without any measured PASS stays
INCONCLUSIVE. Nobody can waive what the recipe calls binding, nor what no recipe can leave out (errors, token
parity, fidelity). After its last day a waiver is void. The file is a `harness.evals.chain.Chain` in the run's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from harness.errors import DataError, RefusedError
from harness.evals.chain import Chain
from harness.evals.results import RuleVerdict, State, Verdict, Waiver

WAIVERS = "waivers.jsonl"
BLOCKING = (State.FAIL, State.INCONCLUSIVE)
Combine = Callable[[Sequence[RuleVerdict]], State]


def read_waivers(run: Path) -> list[Waiver]:
    """The waivers of a run folder, oldest first, the expired ones too.

    Raises:
        IntegrityError: a line was changed, removed or put in.
    """
    return [_waiver(entry) for entry in _chain(run).entries()]


def add_waiver(
    run: Path, waiver: Waiver, *, waivable: Sequence[RuleVerdict], today: date | None = None
) -> None:
    """Writes the waiver down.

    `waivable` are the rules that block the run and that somebody may waive.

    Raises:
        DataError: no name, no reason, a date that is none or is past, or a rule that blocks nothing.
        IntegrityError: as `read_waivers`.
    """
    for key in ("who", "why"):
        if not getattr(waiver, key).strip():
            raise DataError(f"--{key} is empty", hint="a waiver is signed by name, and gives its reason")
    if _last_day(waiver.expires) < (today or _today()):
        raise DataError(f"--until {waiver.expires}: the day is past", hint="the last day on which it holds")
    if not any(_covers(waiver, rule) for rule in waivable):
        named = ", ".join(dict.fromkeys(f'"{rule.rule}"' for rule in waivable)) or "none"
        raise DataError(f"no rule {waiver.rule!r} blocks this run", hint=f"rules that can be waived: {named}")
    when = datetime.now(UTC).isoformat(timespec="seconds")
    _chain(run).append_unless({"time": when, **asdict(waiver)}, lambda _known: False)


def apply_waivers(
    verdict: Verdict,
    waivers: Sequence[Waiver],
    waivable: Sequence[str],
    combine: Combine,
    today: date | None = None,
) -> Verdict:
    """The verdict with every blocking rule that a waiver covers today as WAIVED, and what then follows.

    `waivable` are the names of the recipe's rules that are not binding.
    """
    live = [waiver for waiver in waivers if _last_day(waiver.expires) >= (today or _today())]
    rules = tuple(_apply(rule, live, waivable) for rule in verdict.rules)
    return verdict if rules == verdict.rules else replace(verdict, rules=rules, verdict=combine(rules))


def describe_waiver(waiver: Waiver, today: date | None = None) -> str:
    """Who answers for what, until when; and that it is void where it is."""
    where = f" · {waiver.slice}" if waiver.slice else ""
    void = " (void)" if _last_day(waiver.expires) < (today or _today()) else ""
    return f"{waiver.rule}{where}: waived by {waiver.who} until {waiver.expires}{void}: {waiver.why}"


def require_waivable(rule: str, binding: Sequence[str], of_recipe: Sequence[str]) -> None:
    """Returns when a person may waive the rule.

    Raises:
        RefusedError: it is binding, or no rule of the recipe.
    """
    if rule in binding:
        raise RefusedError(f"{rule!r} is binding: nobody can waive it")
    if rule not in of_recipe:
        raise RefusedError(
            f"{rule!r} is no rule of the recipe: what no recipe can leave out, nobody can waive"
        )


def _apply(rule: RuleVerdict, live: Sequence[Waiver], waivable: Sequence[str]) -> RuleVerdict:
    if rule.verdict not in BLOCKING or rule.rule not in waivable:
        return rule
    found = next((waiver for waiver in reversed(live) if _covers(waiver, rule)), None)
    if found is None:
        return rule
    said = f"waived by {found.who} until {found.expires}: {found.why}; it was {rule.verdict}: {rule.reason}"
    return replace(rule, verdict=State.WAIVED, waived=rule.verdict, waiver=found, reason=said)


def _covers(waiver: Waiver, rule: RuleVerdict) -> bool:
    return (waiver.rule, waiver.suite) == (rule.rule, rule.suite) and waiver.slice in (None, rule.slice)


def _waiver(entry: Mapping[str, Any]) -> Waiver:
    return Waiver(*(entry[key] for key in ("rule", "suite", "slice", "who", "why", "expires")))


def _last_day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise DataError(f"{text!r} is no date", hint="year-month-day, such as 2027-01-31") from error


def _today() -> date:
    return datetime.now(UTC).date()


def _chain(run: Path) -> Chain:
    hint = "bring the file back, or evaluate again with --fresh"
    keys = ("rule", "suite", "slice", "who", "why", "expires")
    return Chain(run / WAIVERS, keys=keys, hint=hint)
