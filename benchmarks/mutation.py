"""Whether the tests notice when the arithmetic of the gate is wrong: one small error at a time.

    python benchmarks/mutation.py                          all files below; resumes where it stopped
    python benchmarks/mutation.py harness/stats/power.py   one file
    python benchmarks/mutation.py --survivors              what is left, with line and change
    python benchmarks/mutation.py --sample 200             at most 200 of each room, a random sample by --seed
    python benchmarks/mutation.py --again                  runs what survived once more, after tests were added
    python benchmarks/mutation.py --again --tests tests/stats/test_textbook.py      with the added tests alone

Every comparison, arithmetic sign, boolean operator and number of `harness/stats/*.py`, `harness/evals/gate*.py` and
`harness/evals/rules/*.py` is changed, one a time: `<` to `<=`, `==` to `!=`, `is` to `is not`, `+` to `-`, `*` to `/`,
`**` to `*`, `-x` to `x`, `and` to `or`, `not x` to `x`, `min` to `max`, True to False, a number n to n + 1. Texts of
errors and reasons, annotations and docstrings are left alone. For each, the tests that execute the changed line are run
until the first one fails, in a copy outside the checkout, with 50 examples of hypothesis that are always the same. A
mutant that makes the tests run ten times longer than they should counts as noticed. Mutants that change nothing
anybody could see are listed with the reason in benchmarks/mutation_equivalent.json and not counted; nothing else is
left out.

Writes benchmarks/results/mutation.json and .md. The exit code is 1 where under 90 % of the mutants were noticed.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mutation_run import run_mutants

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results" / "mutation.json"
EQUIVALENT = Path(__file__).parent / "mutation_equivalent.json"
TARGETS = {
    "harness/stats/*.py": ("tests/stats",),
    "harness/evals/gate*.py": ("tests/evals",),
    "harness/evals/rules/*.py": ("tests/evals",),
}
"""What is changed, and the tests that must notice."""
WANTED_FRAC = 0.9
_COUNTS = ("mutants", "noticed", "survived", "equivalent", "not_run")

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_SIGNS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Div, ast.Mod: ast.Mult,
}  # fmt: skip
_NAMES = {"min": "max", "max": "min", "floor": "ceil", "ceil": "floor", "any": "all", "all": "any"}


class Mutant(NamedTuple):
    """One error, at one place."""

    file: str
    line: int
    change: str
    """The expression before and after."""
    key: str
    """Stays the same when lines move: the file, the function, the change and how often it came before."""
    index: int
    """Of the node in a walk through the module."""
    choice: int
    """Which of the node's changes."""
    function: str | None
    """The function whose body holds it, by its qualified name; None for constants and defaults of a module."""

    def tree(self, source: str) -> ast.Module:
        """The module with the error in it."""
        tree = ast.parse(source)
        _apply(_node_at(tree, self.index), self.choice)
        return ast.fix_missing_locations(tree)


def main() -> int:
    """Runs what has no result yet, prints and writes the table; 1 where too much was not noticed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", help="files to change; all by default")
    parser.add_argument("--survivors", action="store_true", help="list what was not noticed, run nothing")
    parser.add_argument("--again", action="store_true", help="run survivors again")
    parser.add_argument("--tests", nargs="*", default=(), help="run these tests only, instead of the room's")
    parser.add_argument(
        "--sample", type=int, help="run at most so many mutants of each room, drawn by the seed"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the order in which mutants are tried")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    table = json.loads(options.out.read_text())["mutants_run"] if options.out.exists() else {}
    if not options.survivors:
        os.nice(19)
        for room, tests in TARGETS.items():
            files = [file for file in _files(room) if not options.files or file in options.files]
            if files:
                _run_room(files, options.tests or tests, table, options)
    report = summarise(table)
    if not options.survivors:
        _write(options.out, table)
    print_report(report, table)
    return 0 if (report["noticed_frac"] or 0.0) >= WANTED_FRAC else 1


def mutants_of(file: str, source: str) -> list[Mutant]:
    """All mutants of a module, in the order of its lines."""
    tree = ast.parse(source)
    bodies = _bodies(tree)
    seen: dict[str, int] = {}
    found = []
    for index, node, place in _places(tree):
        for number, (before, after) in enumerate(_changes(node)):
            name = f"{file}::{place}::{before} -> {after}"
            seen[name] = seen.get(name, 0) + 1
            key = f"{name} #{seen[name]}"
            line, change = getattr(node, "lineno", 0), f"{before} -> {after}"
            found.append(Mutant(file, line, change, key, index, number, bodies.get(id(node))))
    return sorted(found, key=lambda mutant: mutant.line)


def _places(tree: ast.Module) -> Iterator[tuple[int, ast.AST, str]]:
    """Nodes that can be changed, with their index in the walk and the function that they are in."""
    left_alone = {id(inner) for node in ast.walk(tree) for part in _texts(node) for inner in ast.walk(part)}
    function = _functions(tree)
    for index, node in enumerate(ast.walk(tree)):
        if id(node) not in left_alone:
            yield index, node, function.get(id(node), "module")


def _texts(node: ast.AST) -> Iterator[ast.AST]:
    """Parts that no test should hold fast: what is said in errors, and annotations."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.ImportFrom | ast.Import | ast.Assert):
        yield node
    if isinstance(node, ast.AnnAssign):
        yield node.annotation
    if isinstance(node, ast.arg) and node.annotation:
        yield node.annotation
    if isinstance(node, ast.FunctionDef) and node.returns:
        yield node.returns
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield from node.decorator_list
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        yield node


def _functions(tree: ast.Module) -> dict[int, str]:
    names: dict[int, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            for inner in ast.walk(node):
                outer = names.get(id(inner))
                names[id(inner)] = f"{outer}.{node.name}" if outer else node.name
    return names


def _bodies(tree: ast.Module) -> dict[int, str]:
    """The outermost function, or method of a class, that each node is executed in."""
    names: dict[int, str] = {}
    for outer in tree.body:
        inside = outer.body if isinstance(outer, ast.ClassDef) else [outer]
        prefix = f"{outer.name}." if isinstance(outer, ast.ClassDef) else ""
        for function in inside:
            if isinstance(function, ast.FunctionDef):
                nodes = (node for statement in function.body for node in ast.walk(statement))
                names |= {id(node): prefix + function.name for node in nodes}
    return names


def _changes(node: ast.AST) -> list[tuple[str, str]]:
    """What can be done to the node, as text before and after."""
    count = _choices(node)
    texts = []
    for number in range(count):
        changed = copy.deepcopy(node)
        _apply(changed, number)
        texts.append((ast.unparse(node), ast.unparse(changed)))
    return texts


def _choices(node: ast.AST) -> int:
    if isinstance(node, ast.Compare):
        return sum(type(operator) in _COMPARISONS for operator in node.ops)
    if isinstance(node, ast.BinOp):
        return int(type(node.op) in _SIGNS)
    if isinstance(node, ast.BoolOp):
        return 1
    if isinstance(node, ast.UnaryOp):
        return int(isinstance(node.op, ast.USub | ast.Not))
    if isinstance(node, ast.Constant):
        return int(isinstance(node.value, bool | int | float))
    if isinstance(node, ast.Call):
        return int(_called(node) in _NAMES)
    return 0


def _apply(node: ast.AST, number: int) -> None:
    """Changes the node in place; `number` tells which of its comparisons."""
    if isinstance(node, ast.Compare):
        node.ops[number] = _COMPARISONS[type(node.ops[number])]()
    elif isinstance(node, ast.BinOp):
        node.op = _SIGNS[type(node.op)]()
    elif isinstance(node, ast.BoolOp):
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif isinstance(node, ast.UnaryOp):
        if isinstance(node.op, ast.USub):
            node.op = ast.UAdd()
        else:
            node.operand = ast.UnaryOp(ast.Not(), node.operand)
    elif isinstance(node, ast.Constant):
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        node.func.id = _NAMES[node.func.id]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        node.func.attr = _NAMES[node.func.attr]


def _called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        owner = node.func.value
        return node.func.attr if isinstance(owner, ast.Name) and owner.id == "math" else ""
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _node_at(tree: ast.AST, index: int) -> ast.AST:
    return next(node for number, node in enumerate(ast.walk(tree)) if number == index)


def _run_room(files: Sequence[str], tests: Sequence[str], table: dict[str, Any], options: Any) -> None:
    """Runs the mutants of the files that have no result for the source as it is now."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        folder = Path(name)
        _copy_checkout(folder)
        todo: list[tuple[Mutant, str]] = []
        reasons = _reasons()
        for file in files:
            source = (folder / file).read_text()
            digest = hashlib.sha256(source.encode()).hexdigest()
            mutants = mutants_of(file, source)
            _forget(table, file, digest, {mutant.key for mutant in mutants})
            for mutant in mutants:
                if mutant.key in reasons:
                    table.setdefault(mutant.key, _row(mutant, None, digest))
                elif _is_open(table.get(mutant.key), options):
                    todo.append((mutant, digest))
        # In an order of chance, so that a run that is ended early has tried a random sample.
        todo.sort(key=lambda job: hashlib.sha256(f"{options.seed}:{job[0].key}".encode()).digest())
        if not todo:
            return
        _run_all(folder, todo[: options.sample], files, tests, table, options)


def _is_open(known: Mapping[str, Any] | None, options: Any) -> bool:
    return known is None or (options.again and not known["noticed"])


def _reasons() -> dict[str, str]:
    """Why a mutant is the same program, by its key."""
    return dict(json.loads(EQUIVALENT.read_text())) if EQUIVALENT.exists() else {}


def _forget(table: dict[str, Any], file: str, digest: str, keys: set[str]) -> None:
    """Drops results of another source. Those of the same function stay only where the whole file is the same."""
    for key in [key for key, row in table.items() if row["file"] == file]:
        if table[key]["source"] != digest or key not in keys:
            del table[key]


def _run_all(
    folder: Path, todo: Sequence[tuple[Mutant, str]], files: Sequence[str], tests: Sequence[str],
    table: dict[str, Any], options: Any,
) -> None:  # fmt: skip
    began, done = time.monotonic(), 0

    def keep(number: int, noticed: str | None) -> None:
        nonlocal done
        mutant, digest = todo[number]
        table[mutant.key] = _row(mutant, noticed, digest)
        done += 1
        if done % 20 == 0 or done == len(todo):
            _save(options.out, {"mutants_run": table})
            took = time.monotonic() - began
            print(f"{done} of {len(todo)} in {took:.0f} s", file=sys.stderr, flush=True)

    run_mutants(folder, tests, files, [mutant for mutant, _ in todo], options.processes, keep)


def _row(mutant: Mutant, noticed: str | None, digest: str) -> dict[str, Any]:
    return {
        "file": mutant.file, "line": mutant.line, "change": mutant.change, "noticed": noticed, "source": digest,
    }  # fmt: skip


def _copy_checkout(folder: Path) -> None:
    """The files that the tests need, as they are now: nobody else's edit reaches a run half way."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "harness", "tests", "suites", "recipes",
         "pyproject.toml"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)


def _files(pattern: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern) if path.name != "__init__.py")


def summarise(table: Mapping[str, Any]) -> dict[str, Any]:
    """Counts by file and in all, of the sources as they are now; the mutants that are the same program apart."""
    reasons = _reasons()
    rows = {file: _counts(file, table, reasons) for room in TARGETS for file in _files(room)}
    total = {name: sum(row[name] for row in rows.values()) for name in _COUNTS}
    return {**total, "noticed_frac": _share(total), "files": rows}


def _counts(file: str, table: Mapping[str, Any], reasons: Mapping[str, str]) -> dict[str, int]:
    source = (ROOT / file).read_text()
    digest, keys = hashlib.sha256(source.encode()).hexdigest(), [m.key for m in mutants_of(file, source)]
    known = {key: table[key] for key in keys if key in table and table[key]["source"] == digest}
    noticed = sum(bool(row["noticed"]) for row in known.values())
    same = sum(key in reasons and not known.get(key, {}).get("noticed") for key in keys)
    not_run = sum(key not in known and key not in reasons for key in keys)
    return {"mutants": len(keys), "noticed": noticed, "survived": len(keys) - noticed - same - not_run,
            "equivalent": same, "not_run": not_run}  # fmt: skip


def _share(counts: Mapping[str, int]) -> float | None:
    """Noticed of those that were run and are no equivalents; None where none were."""
    counted = counts["noticed"] + counts["survived"]
    return counts["noticed"] / counted if counted else None


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.1%}"


def _save(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    part.replace(path)


def _write(path: Path, table: Mapping[str, Any]) -> None:
    ordered = dict(sorted(table.items(), key=lambda item: (item[1]["file"], item[1]["line"], item[0])))
    report = {"date": time.strftime("%Y-%m-%d"), **summarise(table), "wanted_frac": WANTED_FRAC}
    _save(path, {**report, "mutants_run": ordered})
    path.with_suffix(".md").write_text(page(report))


def page(report: Mapping[str, Any]) -> str:
    """The table as Markdown: a line a file, then one a room."""
    rows = dict(report["files"])
    for room in TARGETS:
        mine = [report["files"][file] for file in _files(room)]
        rows[f"**{room}**"] = {name: sum(row[name] for row in mine) for name in _COUNTS}
    rows["**all**"] = {name: report[name] for name in _COUNTS}
    lines = [f"| {file} | {' | '.join(str(row[name]) for name in _COUNTS)} | {_percent(_share(row))} |"
             for file, row in rows.items()]  # fmt: skip
    return "\n".join([
        "# Small errors in the arithmetic of the gate that its tests notice", "",
        f"{report['date']}; {_percent(report['noticed_frac'])} of the errors tried that change anything, wanted "
        f"{report['wanted_frac']:.0%}. One error at a time in a comparison, a sign, a boolean or a number; those that "
        "were not run are the rest of an order of chance, in which constants of modules and defaults come last, or "
        "belong to a file that has changed since. Equivalents are listed by hand, each with its reason, in "
        "`benchmarks/mutation_equivalent.json`. Written by `benchmarks/mutation.py`.", "",
        "| file | errors | noticed | survived | equivalent | not run | noticed of those run |",
        "|---|---|---|---|---|---|---|", *lines, "",
    ])  # fmt: skip


def print_report(report: Mapping[str, Any], table: Mapping[str, Any]) -> None:
    """A line a file, then a line for each mutant that nothing noticed."""
    reasons = _reasons()
    for file, row in report["files"].items():
        print(f"{file:<40} {row['noticed']:>4} of {row['noticed'] + row['survived']:>4} noticed, "
              f"{row['equivalent']} equivalent, {row['not_run']} not run")  # fmt: skip
    for key, row in table.items():
        if not row["noticed"] and key not in reasons:
            print(f"  {row['file']}:{row['line']}  {row['change']}   [{key}]")
    print(f"{_percent(report['noticed_frac'])} noticed; wanted {WANTED_FRAC:.0%}")


if __name__ == "__main__":
    sys.exit(main())
