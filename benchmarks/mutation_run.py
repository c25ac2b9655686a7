"""Runs chosen tests against many mutants: the tests are collected once, each mutant is a fork of that process.

In the fork the code of the one function that holds the error is exchanged, and the tests that execute the changed
line run, the quickest first, until one fails. What a fork cannot exchange, a module's constant or a default, is
imported afresh in a process of its own. Limits are seconds of processor time, so that a busy machine finds no errors.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib.machinery
import importlib.util
import json
import os
import resource
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NamedTuple, Protocol

SPARE_S = 5.0
"""Processor time on top of ten times what a test took."""
WALL_S = 900.0
"""For what waits and uses no processor."""
MOST_MEMORY_BYTES = 8 << 30
TRACED_CALLS = 300
"""Calls of a function in one test after which its lines are known well enough."""
Lines = dict[str, dict[str, list[int]]]


class Mutant(Protocol):
    """What is needed of a mutant here."""

    @property
    def file(self) -> str: ...
    @property
    def line(self) -> int: ...
    @property
    def function(self) -> str | None:
        """Qualified name of the function whose body holds the error; None where it is outside of any."""

    def tree(self, source: str) -> ast.Module: ...


class Ran(NamedTuple):
    """What the tests did."""

    lines: Lines
    """Lines that each test executed, by file."""
    seconds: dict[str, float]
    """Processor time."""
    failed: str | None


def run_mutants(
    folder: Path, tests: Sequence[str], files: Sequence[str], mutants: Sequence[Any], processes: int,
    report: Callable[[int, str | None], None],
) -> None:  # fmt: skip
    """Tells for each mutant, by its place in the list, the test that noticed it, "time", "import" or None.

    Raises:
        SystemExit: the tests can't be collected, or fail without any error put in.
    """
    _load_libraries()
    gc.freeze()  # forks then share the pages of what is loaded
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _be_child(folder, lambda: _session(folder, tests, files, mutants, processes, write))
    os.close(write)
    ran, left = None, []
    with os.fdopen(read) as pipe:
        for line in pipe:
            said = json.loads(line)
            if "failed" in said:
                ran = Ran(**said)
                if ran.failed:
                    break
            elif said["found"] == "afresh":
                left.append(said["mutant"])
            else:
                report(said["mutant"], said["found"])
    os.waitpid(child, 0)
    shutil.rmtree(_scratch(folder, child), ignore_errors=True)
    if ran is None or ran.failed:
        raise SystemExit(f"the tests fail without any change: {ran.failed if ran else 'nothing collected'}")
    jobs = ((number, partial(_afresh, folder, mutants[number], ran)) for number in left)
    for number, found in _side_by_side(folder, jobs, processes):
        report(number, found)


def _session(
    folder: Path, tests: Sequence[str], files: Sequence[str], mutants: Sequence[Any], processes: int, write: int
) -> None:  # fmt: skip
    runner = _Runner(folder, files, mutants, processes, write)
    _pytest(tests, runner)


def _pytest(tests: Sequence[str], plugin: Any) -> None:
    import pytest

    pytest.main(
        ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow and not real", *tests], plugins=[plugin]
    )


class _Settings:
    """A plugin of pytest: few examples of hypothesis, always the same."""

    def pytest_configure(self) -> None:
        from hypothesis import settings

        settings.register_profile("mutation", deadline=None, database=None, derandomize=True, max_examples=50)
        settings.load_profile("mutation")


class _Runner(_Settings):
    """Takes the place of pytest's own loop over the collected tests."""

    def __init__(
        self, folder: Path, files: Sequence[str], mutants: Sequence[Any], processes: int, write: int
    ) -> None:
        self._folder, self._files, self._mutants = folder, files, mutants
        self._processes, self._write = processes, write

    def pytest_runtestloop(self, session: Any) -> bool:
        items = {item.nodeid: item for item in session.items}
        if session.testsfailed:
            self._say(Ran({}, {}, "a file of tests could not be collected")._asdict())
            return True
        [(_, found)] = _side_by_side(self._folder, [(0, lambda: self._baseline(items))], 1)
        ran = Ran(**found) if isinstance(found, dict) else Ran({}, {}, str(found))
        self._say(ran._asdict())
        if ran.failed is None:
            for number, noticed in _side_by_side(self._folder, self._jobs(items, ran), self._processes):
                self._say({"mutant": number, "found": noticed})
        return True

    def _say(self, what: Mapping[str, Any]) -> None:
        data = (json.dumps(what) + "\n").encode()
        while data:
            data = data[os.write(self._write, data) :]

    def _baseline(self, items: Mapping[str, Any]) -> dict[str, Any]:
        watcher = _Watcher({str(self._folder / file): file for file in self._files})
        watcher.run(list(items.values()))
        return watcher.ran()._asdict()

    def _jobs(self, items: Mapping[str, Any], ran: Ran) -> Iterator[tuple[int, Callable[[], Any]]]:
        for number, mutant in enumerate(self._mutants):
            names = _reached(self._folder, mutant, ran)
            if not names:
                self._say({"mutant": number, "found": None})
            elif mutant.function is None or _function(mutant) is None:
                self._say({"mutant": number, "found": "afresh"})
            else:
                chosen = [items[name] for name in names]
                yield number, partial(self._try, mutant, chosen, ran)

    def _try(self, mutant: Any, chosen: Sequence[Any], ran: Ran) -> str | None:
        _exchange(self._folder, mutant)
        watcher = _Watcher({}, ran.seconds)
        watcher.run(chosen)
        return watcher.failed


def _reached(folder: Path, mutant: Mutant, ran: Ran) -> list[str]:
    """The tests that execute the changed line, the quickest first: most errors are found by any of them."""
    statements = _first_lines(folder / mutant.file)
    names = [
        name for name, files in ran.lines.items() if _executes(mutant, files.get(mutant.file, []), statements)
    ]
    return sorted(names, key=lambda name: ran.seconds[name])


def _executes(mutant: Mutant, lines: Sequence[int], statements: set[int]) -> bool:
    """Whether the line ran; a default, a module's constant or a later line of a statement may tell in any test."""
    return bool(lines) and (mutant.line in lines or mutant.line not in statements)


@cache
def _first_lines(path: Path) -> set[int]:
    """Lines that a tracer surely reports: where statements inside functions begin."""
    functions = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef))
    return {
        node.lineno
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.stmt) and not isinstance(node, ast.FunctionDef)
    }


def _module(file: str) -> str:
    return file.removesuffix(".py").replace("/", ".")


def _function(mutant: Mutant) -> FunctionType | None:
    """The loaded function whose body holds the error."""
    owner: Any = sys.modules.get(_module(mutant.file))
    *classes, name = str(mutant.function).split(".")
    for part in classes:
        owner = vars(owner).get(part) if owner is not None else None
    found = vars(owner).get(name) if owner is not None else None
    if isinstance(found, property):
        found = found.fget
    found = getattr(found, "__func__", found)
    found = getattr(found, "__wrapped__", found)
    return found if isinstance(found, FunctionType) else None


def _exchange(folder: Path, mutant: Mutant) -> None:
    function = _function(mutant)
    assert function is not None
    path = folder / mutant.file
    code = compile(mutant.tree(path.read_text()), str(path), "exec", dont_inherit=True)
    function.__code__ = next(part for part in _codes(code) if part.co_qualname == mutant.function)


def _codes(code: CodeType) -> Iterator[CodeType]:
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield part
            yield from _codes(part)


def _afresh(folder: Path, mutant: Mutant, ran: Ran) -> str | None:
    """The test that notices the mutant, with the changed module imported instead of the right one."""
    sys.meta_path.insert(0, _Finder(folder, mutant))
    names = _reached(folder, mutant, ran)
    runner = _Fresh(names, ran.seconds)
    _pytest(sorted({name.split("::")[0] for name in names}), runner)
    return runner.found


class _Fresh(_Settings):
    """Runs the named tests; one that is no longer collected has noticed."""

    def __init__(self, names: Sequence[str], seconds: Mapping[str, float]) -> None:
        self._names, self._seconds = names, seconds
        self.found: str | None = "import"

    def pytest_runtestloop(self, session: Any) -> bool:
        items = {item.nodeid: item for item in session.items}
        if session.testsfailed or not all(name in items for name in self._names):
            return True
        watcher = _Watcher({}, self._seconds)
        watcher.run([items[name] for name in self._names])
        self.found = watcher.failed
        return True


class _Watcher:
    """Runs collected tests one after the other until one fails; tells their times and the lines that they run."""

    def __init__(self, watched: Mapping[str, str], limits: Mapping[str, float] | None = None) -> None:
        self._watched, self._limits = watched, limits
        self._current: dict[str, set[int]] = {}
        self._calls: dict[CodeType, int] = {}
        self._lines: dict[str, dict[str, set[int]]] = {}
        self._seconds: dict[str, float] = {}
        self.failed: str | None = None

    def run(self, items: Sequence[Any]) -> None:
        if items:
            items[0].config.pluginmanager.register(self)
        for item, following in zip(items, [*items[1:], None], strict=True):
            began = time.process_time()
            self._current, self._calls = self._lines.setdefault(item.nodeid, {}), {}
            if self._limits is not None:
                _limit_to(began + SPARE_S + 10.0 * self._limits[item.nodeid])
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            self._seconds[item.nodeid] = time.process_time() - began
            if self.failed is not None:
                return

    def ran(self) -> Ran:
        lines = {name: {f: sorted(ls) for f, ls in by.items()} for name, by in self._lines.items()}
        return Ran(lines, self._seconds, self.failed)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and self.failed is None:
            self.failed = report.nodeid

    def pytest_runtest_call(self) -> None:
        if self._watched:
            sys.settrace(self._trace)

    def pytest_runtest_setup(self) -> None:
        self.pytest_runtest_call()

    def _trace(self, frame: Any, _event: str, _argument: Any) -> Any:
        file = self._watched.get(frame.f_code.co_filename)
        if file is None:
            return None
        calls = self._calls[frame.f_code] = self._calls.get(frame.f_code, 0) + 1
        if calls > TRACED_CALLS:
            return None
        lines = self._current.setdefault(file, set())

        def local(inner: Any, _event: str, _argument: Any) -> Any:
            lines.add(inner.f_lineno)
            return local

        lines.add(frame.f_lineno)
        return local


class _Finder:
    """Finds the changed module before anybody else does."""

    def __init__(self, folder: Path, mutant: Mutant) -> None:
        self._path, self._module = folder / mutant.file, _module(mutant.file)
        self._tree = mutant.tree((folder / mutant.file).read_text())

    def find_spec(self, name: str, _path: Any, _target: Any = None) -> Any:
        if name != self._module:
            return None
        return importlib.util.spec_from_file_location(
            name, self._path, loader=_Loader(name, str(self._path), self._tree)
        )


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, tree: ast.Module) -> None:
        super().__init__(name, path)
        self._tree = tree

    def get_code(self, _fullname: str) -> Any:
        return compile(self._tree, self.path, "exec", dont_inherit=True)


class _Child(NamedTuple):
    number: int
    pid: int
    deadline: float
    said: bytearray


def _side_by_side(
    folder: Path, jobs: Iterable[tuple[int, Callable[[], Any]]], processes: int
) -> Iterator[tuple[int, Any]]:
    """What each job returns, run in forks of this process, so many at a time."""
    waiting, running = iter(jobs), dict[int, _Child]()
    while True:
        while len(running) < processes and (job := next(waiting, None)) is not None:
            read, child = _fork(folder, *job)
            running[read] = child
        if not running:
            return
        ready, _, _ = select.select(list(running), [], [], 1.0)
        for read, child in list(running.items()):
            part = os.read(read, 1 << 20) if read in ready else None
            if part:
                child.said.extend(part)
                continue
            is_late = time.monotonic() > child.deadline
            if part is None and not is_late:
                continue
            yield child.number, _ended(folder, read, running.pop(read), is_late)


def _fork(folder: Path, number: int, work: Callable[[], Any]) -> tuple[int, _Child]:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _be_child(folder, work, write)
    os.close(write)
    return read, _Child(number, pid, time.monotonic() + WALL_S, bytearray())


def _ended(folder: Path, read: int, child: _Child, is_late: bool) -> Any:
    if is_late:
        os.kill(child.pid, signal.SIGKILL)
    os.close(read)
    _, status = os.waitpid(child.pid, 0)
    shutil.rmtree(_scratch(folder, child.pid), ignore_errors=True)
    if is_late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        return "time"
    return json.loads(bytes(child.said)) if child.said else "import"


def _scratch(folder: Path, pid: int) -> Path:
    return folder.with_name(f"{folder.name}-scratch-{pid}")


def _be_child(folder: Path, work: Callable[[], Any], write: int | None = None) -> None:
    code = 1
    try:
        os.chdir(folder)
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
        scratch = _scratch(folder, os.getpid())
        scratch.mkdir()
        os.environ["PYTEST_DEBUG_TEMPROOT"] = os.environ["TMPDIR"] = str(scratch)
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        answer = json.dumps(work()).encode()
        while write is not None and answer:
            answer = answer[os.write(write, answer) :]
        code = 0
    finally:
        os._exit(code)


def _limit_to(used_s: float) -> None:
    """Ends this process once it has used so much processor time."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used_s) + 1, hard))


def _load_libraries() -> None:
    """What every test needs, before forking."""
    for name in ("numpy", "scipy.stats", "scipy.special", "hypothesis", "pytest", "pydantic"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
