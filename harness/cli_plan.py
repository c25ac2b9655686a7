"""The commands before a recipe: plan one from what the domain demands, and write a project to begin with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli_options import Data, Json
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.planning.estimates import Estimates
    from harness.specs.situation import Plan, Situation

DomainName = Annotated[
    str, typer.Argument(help="healthcare, finance, legal, support, ecommerce or science.", show_default=False)
]


def add_plan(app: typer.Typer) -> None:
    """Puts the commands of this file among the others."""
    app.command()(plan)
    app.command()(init)


def plan(
    domain: DomainName,
    sensitive: Annotated[bool, typer.Option("--sensitive", help="Training data hold personal data.")] = False,
    latency_ms: Annotated[float | None, typer.Option(help="What 95 of 100 requests must stay under.")] = None,
    budget: Annotated[str, typer.Option(help="tight, normal or ample.")] = "normal",
    consequence: Annotated[str, typer.Option(help="Of a wrong answer: low, medium or high.")] = "medium",
    knowledge: Annotated[str, typer.Option(help="stable or changing.")] = "stable",
    records: Annotated[int | None, typer.Option(min=1, help="Training records; default: those of the suite.")] = None,
    suite: Annotated[
        list[Path] | None, typer.Option("--suite", help="Suites; the first trains. Default: the domain's own.")
    ] = None,
    base: Annotated[str, typer.Option(help="As in a recipe.")] = "embedded:smollm2-135m",
    at_least: Annotated[float, typer.Option(min=0.01, max=0.99, help="Share of answers that must be right.")] = 0.75,
    threads: Annotated[int, typer.Option(min=1, help="Of the device.")] = 2,
    memory_mb: Annotated[int, typer.Option(min=64, help="Of the device.")] = 4096,
    train_memory_mb: Annotated[float | None, typer.Option(help="That training may take: the GPU's if any.")] = None,
    per_hour: Annotated[float | None, typer.Option(min=0, help="Price of an hour of the machine that trains.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the recipe here.")] = None,
    data: Data = None, json_out: Json = False,
) -> None:  # fmt: skip
    """From constraints to a recipe, with reasons.

    The smallest method that suits, and the gates that the constraints oblige.

    Example: harness plan legal --consequence high --budget tight --out recipes/mine.yaml
    """
    from harness.jobs.store import home_folder
    from harness.planning.document import recipe_yaml
    from harness.planning.estimates import estimate
    from harness.planning.project import propose

    situation = _situation(
        domain, base=base, at_least=at_least, n_train=records, train_memory_mb=train_memory_mb, out=out,
        constraints={
            "data_sensitive": sensitive, "latency_ms": latency_ms, "budget": budget, "consequence": consequence,
            "knowledge": knowledge,
        },
        device={"name": "cpu", "threads": threads, "memory_mb": memory_mb}, suites=suite or [], data_root=data,
    )  # fmt: skip
    found = propose(situation)
    takes = estimate(found, home_folder(), n_train=situation.n_train, per_hour=per_hour)
    if out is not None:
        from harness.files import write_atomic

        if out.exists():
            raise HarnessError(f"{out}: is there", hint="name another file")
        write_atomic(out, recipe_yaml(found, str(out)))
    if json_out:
        typer.echo(json.dumps(_document(found, takes, out), ensure_ascii=False))
    else:
        _print_plan(found, takes, out)


def init(
    domain: DomainName,
    folder: Annotated[
        Path | None, typer.Argument(help="Empty or absent; default: the domain's name.")
    ] = None,
    json_out: Json = False,
) -> None:
    """Writes a project to begin with.

    A recipe, its suites, records to replace, and what comes next.

    Example: harness init legal contracts
    """
    from harness.planning.project import start_project
    from harness.specs.domains import DOMAINS

    known = [name for name in DOMAINS if name != "shared"]
    wanted = next((name for name in known if name == domain), None)
    if wanted is None:
        raise HarnessError(f"{domain}: no such domain", hint=f"one of {', '.join(known)}")
    made = start_project(wanted, folder or Path(domain))
    if json_out:
        document = {
            "folder": str(made.folder), "recipe": str(made.recipe), "suites": list(map(str, made.suites)),
            "open": list(made.open),
        }  # fmt: skip
        typer.echo(json.dumps(document, ensure_ascii=False))
        return
    typer.echo(f"{made.folder}: {made.recipe.name}, {len(made.suites)} suites, README.md")
    typer.echo(f"next: cd {made.folder} && harness check {made.recipe.name}")


def _situation(
    domain: str, *, constraints: dict[str, Any], device: dict[str, Any], suites: list[Path], data_root: Path | None,
    out: Path | None, **known: Any,
) -> Situation:  # fmt: skip
    """What the options say.

    Raises:
        SpecError: an option has a value that recipes don't know.
    """
    from harness.planning.estimates import base_mb
    from harness.planning.facts import read_suite, with_suites
    from harness.specs.device import Device
    from harness.specs.domains import DOMAINS
    from harness.specs.load import validate
    from harness.specs.recipe import Constraints
    from harness.specs.situation import Situation
    from harness.specs.yaml import YamlDocument

    wanted = next((name for name in DOMAINS if name == domain), None)
    if wanted is None:
        raise HarnessError(f"{domain}: no such domain", hint=f"one of {', '.join(DOMAINS)}")
    stated = validate(YamlDocument("the options", constraints, {}), Constraints)
    situation = Situation(
        wanted, stated, device=Device.model_validate(device), base_mb=base_mb(known["base"]),
        name=_name(out, domain), **known,
    )  # fmt: skip
    named = {_named(path, out): read_suite(path, data_root) for path in suites}
    return with_suites(situation, named, data_root) if named else situation


def _name(out: Path | None, domain: str) -> str:
    """A recipe's name from its file's."""
    import re

    stem = re.sub(r"[^a-z0-9_.-]+", "-", out.stem.lower()).strip("-.") if out is not None else ""
    return stem or f"{domain}-plan"


def _named(path: Path, out: Path | None) -> str:
    """The suite as the recipe in `out` calls it: from there, where it is a file of the user's."""
    import os

    return os.path.relpath(path, out.parent) if out is not None and path.is_file() else str(path)


def _document(found: Plan, takes: Estimates, out: Path | None) -> dict[str, Any]:
    owed = [
        {"name": one.name, "because": one.because, "wants": one.wants, "add": one.add}
        for one in found.obligations
    ]
    return {
        "recipe": found.recipe, "obligations": owed, "reasons": [reason._asdict() for reason in found.reasons],
        "open": list(found.open), "estimates": takes._asdict(), "file": None if out is None else str(out),
    }  # fmt: skip


def _print_plan(found: Plan, takes: Estimates, out: Path | None) -> None:
    from harness.planning.document import recipe_yaml

    if out is None:
        typer.echo(recipe_yaml(found, f"{found.recipe['recipe']}.yaml"), nl=False)
    else:
        typer.echo(f"{out}: written; next: harness check {out}")
    for one in found.obligations:
        typer.echo(f"obliged: {one.name}, for {one.because}: {one.wants}", err=True)
    for line in found.open:
        typer.echo(f"open: {line}", err=True)
    for name, value in takes._asdict().items():
        shown = "unknown" if value is None else f"{value:,}" if isinstance(value, int) else value
        typer.echo(f"estimate: {name} {shown}", err=True)
