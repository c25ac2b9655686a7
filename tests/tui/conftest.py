"""Run folders in every state, at a fixed time, and the screen as text."""

from __future__ import annotations

import itertools
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fakes import FakeRun

from harness.jobs import lease

if TYPE_CHECKING:
    from harness.tui.keys import Action
    from harness.tui.screens.base import Effect, Screen

STARTED_S = 1_795_338_000.0
NOW_S = STARTED_S + 3600.0
RECORDED_S = 1_795_374_000.0
"""An hour at which everything recorded had been."""
RECORDED = Path(__file__).parents[1] / "golden"
RECIPE = "# a recipe\nrecipe: my-first\ndomain: legal\ndescription: Something to try.\nbase: embedded:smollm2-135m\n"


@pytest.fixture(autouse=True)
def _fixed_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    ticks = itertools.count()
    monkeypatch.setattr(
        "harness.jobs.journal.time", SimpleNamespace(time=lambda: STARTED_S + next(ticks) * 0.5)
    )
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("HARNESS_THEME", raising=False)
    monkeypatch.setenv("HARNESS_REVIEWER", "ana")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(autouse=True)
def _keeps_its_word(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that says which actions it does has done them."""
    declared = set(getattr(request.function, "does", ()))
    if not declared:
        yield
        return
    from harness.tui.desk import Desk

    done: set[str] = set()
    found = Desk.handler

    def noted(desk: Desk, action: Action, screen: Screen) -> Callable[[], Effect | None]:
        done.add(f"{screen.name}.{action.name}")
        return found(desk, action, screen)

    monkeypatch.setattr(Desk, "handler", noted)
    yield
    assert declared <= done, f"never done: {sorted(declared - done)}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a recipe of its own, and nothing else that comes with the harness."""
    place = tmp_path / "place"
    (place / "recipes").mkdir(parents=True)
    (place / "recipes" / "mine.yaml").write_text(RECIPE)
    (place / "suites").mkdir()
    (place / "suites" / "one.yaml").write_text("suite: one\ndomain: science\ntask: generate\n")
    (place / "suites" / "other.yaml").write_text("something: else\n")
    monkeypatch.chdir(place)
    monkeypatch.setattr("harness.tui.views.documents.bundled_root", lambda: tmp_path / "nowhere")
    return place


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty home folder."""
    return tmp_path / "home"


@pytest.fixture
def recorded(home: Path) -> Path:
    """A home as the demo's release left it, and a server of another one: real files, of which nothing is written."""
    shutil.copytree(RECORDED / "runs", home / "runs")
    shutil.copytree(RECORDED / "serving", home / "serving")
    return home


@pytest.fixture(scope="session")
def _finished_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ticks = itertools.count()
    home = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "harness.jobs.journal.time", SimpleNamespace(time=lambda: STARTED_S + next(ticks) * 0.5)
        )
        FakeRun(home).to_the_end()
    return home


@pytest.fixture
def finished(home: Path, _finished_once: Path) -> FakeRun:
    """A release that shipped q5_k_m."""
    shutil.copytree(_finished_once, home, dirs_exist_ok=True)
    return FakeRun(home)


@pytest.fixture
def training(home: Path) -> Iterator[FakeRun]:
    """A release in the middle of its training, held by this process."""
    run = FakeRun(home, "legal-train-55aa0011")
    with lease.hold(run.folder):
        yield run.until("train.step", 41)


@pytest.fixture
def scoring(home: Path) -> Iterator[FakeRun]:
    """A release in the middle of scoring its adapter, held by this process."""
    run = FakeRun(home, "legal-score-66aa0011")
    with lease.hold(run.folder):
        yield run.until("eval.batch", 27)


@pytest.fixture
def failed(home: Path) -> FakeRun:
    """A release that a gate stopped."""
    run = FakeRun(home, "legal-cuad-0b12ff34")
    run.write_manifest("release legal-cuad", "2026-11-20T10:00:00+00:00")
    run.until("verdict", 2)
    run.journal.write(
        "run.failed",
        error="adapter: recall per label fails for 3 labels",
        hint="harness show last",
        exit_code=1,
    )
    return run


@pytest.fixture
def died(home: Path) -> FakeRun:
    """A release whose worker is gone."""
    return FakeRun(home, "legal-dead-77bb0011").until("eval.batch", 5)
