"""The evaluation engine beside its peers, in one table.

    python benchmarks/engine.py                  the table of the kept figures
    python benchmarks/engine.py --run            all five again, one after another: an hour on two cores

Puts together what multiple_choice, gguf_choices, gguf_generation, overhead and memory measured, each against a named
peer on the same work, and says which target is met. Writes benchmarks/results/engine.md. The exit code is 1 where a
target is missed or a figure is not there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PARTS = ("multiple_choice", "gguf_choices", "gguf_generation", "overhead", "memory")


class Row(NamedTuple):
    """One comparison."""

    work: str
    peer: str
    ratio: float | None
    target: float
    note: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", action="store_true", help="measure all parts first")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    options = parser.parse_args()
    if options.run:
        for part in PARTS:
            print(f"== {part}", flush=True)
            subprocess.run([sys.executable, str(HERE / f"{part}.py")], check=False)
    rows = list(table())
    text = page(rows)
    (RESULTS / "engine.md").write_text(text)
    print(json.dumps([row._asdict() for row in rows]) if options.json else text)
    return 0 if all(is_met(row) for row in rows) else 1


def table() -> Iterator[Row]:
    """The rows, in the order of the parts; a part that was not measured has no ratio."""
    yield from _multiple_choice(_read("multiple_choice"))
    yield from _gguf_choices(_read("gguf_choices"))
    yield from _generation(_read("gguf_generation"))
    yield from _overhead(_read("overhead"))
    yield from _memory(_read("memory"))


def _read(part: str) -> dict[str, Any] | None:
    path = RESULTS / f"{part}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def _multiple_choice(found: dict[str, Any] | None) -> Iterator[Row]:
    for setting, target in (("0-shot", 1.5), ("5-shot", 3.0), ("5-shot, one set", 3.0)):
        systems = (found or {}).get("settings", {}).get(setting, {})
        row = next((one for name, one in systems.items() if name.startswith("lm-eval")), None)
        note = f"log-likelihoods within {row['largest_difference']:.0e} nats" if row else ""
        ratio = row["slower_than_ours"] if row else None
        yield Row(f"choices by log-likelihood, Transformers, {setting}", "lm-eval `hf`", ratio, target, note)


def _gguf_choices(found: dict[str, Any] | None) -> Iterator[Row]:
    for file in (found or {}).get("files", [{"file": "GGUF", "ways": {}}]):
        ways = file["ways"]
        echo = next((way for name, way in ways.items() if name.startswith("echo")), None)
        hand = next((way for name, way in ways.items() if name.startswith("scores")), None)
        note = f"its values are {echo['mean_distance']:.1f} nats off on average" if echo else ""
        if hand:
            note += f"; against its class driven by hand {hand['ratio_wall']:.1f} times"
        ratio = echo["ratio_wall"] if echo else None
        yield Row(
            f"choices by log-likelihood, {file['file']}", "llama-cpp-python, high level", ratio, 20.0, note
        )


def _generation(found: dict[str, Any] | None) -> Iterator[Row]:
    ways = (found or {}).get("ways", {})
    one = ways.get("one by one")
    others = ", ".join(
        f"{name.removeprefix('transformers ')} {way['ratio_wall']:.1f}"
        for name, way in ways.items()
        if name.startswith("transformers")
    )
    note = f"against Transformers in one batch: {others} times" if others else ""
    ratio = one["ratio_wall"] if one else None
    yield Row("64 answers of 48 tokens, GGUF", "llama-cpp-python, one by one", ratio, 2.0, note)


def _overhead(found: dict[str, Any] | None) -> Iterator[Row]:
    rate = found["ours_per_s"] if found else None
    yield Row("10,000 samples through a scripted model, samples/s", "a limit", rate, 5000.0)
    ratio = found["ratio_median_of_pairs"] if found else None
    yield Row("the same", "inspect_ai, mock model", ratio, 10.0)


def _memory(found: dict[str, Any] | None) -> Iterator[Row]:
    systems = (found or {}).get("systems", {})
    known = {name: one["added_bytes"] for name, one in systems.items() if "error" not in one}
    ours = next((size for name, size in known.items() if name.startswith("ours")), None)
    peer = next((size for name, size in known.items() if name.startswith("lm-eval")), None)
    note = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in known.items()) or ""
    yield Row(
        "memory added by scoring 32 rows of 1,024 tokens",
        "lm-eval `hf`",
        peer / ours if ours and peer else None,
        1.0,
        note,
    )


def is_met(row: Row) -> bool:
    return row.ratio is not None and row.ratio >= row.target


def verdict(row: Row) -> str:
    """In a word whether the target is met."""
    return "not run" if row.ratio is None else "met" if is_met(row) else "**missed**"


def page(rows: list[Row]) -> str:
    """The table as Markdown."""
    lines = [
        f"| {row.work} | {row.peer} | {'—' if row.ratio is None else f'{row.ratio:,.1f}'} | {row.target:g} | "
        f"{verdict(row)} | {row.note} |\n"
        for row in rows
    ]
    return (
        "# The evaluation engine beside its peers\n\n"
        "How many times as fast, or as sparing, on the same work in one run: medians of paired repetitions. Each part "
        "has a page of its own here, with machine, versions and profile. Written by `benchmarks/engine.py`.\n\n"
        "| work | peer | ratio | target | | |\n|---|---|---|---|---|---|\n" + "".join(lines)
    )


if __name__ == "__main__":
    sys.exit(main())
