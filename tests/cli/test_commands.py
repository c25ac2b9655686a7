import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("numpy", "torch", "textual", "pydantic", "scipy", "transformers", "sklearn", "ruamel")


def harness(*arguments: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HARNESS_HOME": str(home or "unused"), "COLUMNS": "120"}
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def loaded_by(code: str) -> set[str]:
    """Which heavy modules a fresh process has loaded after the code."""
    script = f"{code}\nimport sys\nprint(' '.join(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name for name in done.stderr.split() if name in HEAVY}


def test_help_loads_nothing_heavy() -> None:
    show_help = "from typer.testing import CliRunner\nfrom harness.cli import app\nCliRunner().invoke(app, ['--help'])"

    assert loaded_by(show_help) == set()


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("harness", set(HEAVY)),
        ("harness.cli", set(HEAVY)),
        ("harness.jobs.journal", set(HEAVY)),
        ("harness.jobs.store", set(HEAVY)),
        ("harness.evals.gate", {"torch", "transformers", "sklearn", "scipy", "textual", "numpy"}),
        ("harness.evals.compare", {"torch", "transformers", "sklearn", "scipy", "textual", "numpy"}),
        ("harness.formats.junit", set(HEAVY)),
        ("harness.formats.markdown", set(HEAVY)),
        ("harness.tui.app", {"torch", "transformers", "sklearn", "scipy"}),
        ("harness.jobs.worker", {"torch", "textual"}),
        ("harness.jobs.release", {"torch", "textual", "transformers"}),
    ],
)
def test_rooms_load_no_more_than_they_may(module: str, forbidden: set[str]) -> None:
    assert loaded_by(f"import {module}") & forbidden == set()


def test_a_finished_run_is_judged_again_without_any_heavy_library(tmp_path: Path) -> None:
    shutil.copytree("tests/golden/runs/demo", tmp_path / "runs" / "demo")
    judge = (
        f"import os, sys\nos.environ['HARNESS_HOME'] = {str(tmp_path)!r}\n"
        "sys.argv = ['harness', 'gate', 'demo', '--stage', 'adapter', '--explain']\n"
        "from harness.cli import main\ntry:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0, end.code"
    )

    assert loaded_by(judge) <= {"pydantic"}  # the rules are its documents


@pytest.mark.parametrize(
    "command",
    ["demo", "release", "train", "export", "eval", "check", "lock", "gate", "waive", "verify", "runs", "show",
     "compare", "attach", "cancel", "board", "doctor"],
)  # fmt: skip
def test_every_command_has_an_example(command: str) -> None:
    done = harness(command, "--help")

    assert done.returncode == 0
    assert "Example: harness" in " ".join(done.stdout.split())


def test_five_mistakes_are_five_lines_at_once(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "recipe: mistaken\ndomain: legl\nbase: embedded:smollm2-135m\nsuites: [suites/legal/clauses.yaml]\n"
        "tune: {rank: 0, epoch: 2}\n"
        "gates:\n  - {metric: accuracy, at_least: 1.5}\n  - {metric: acuracy, at_least: 0.5}\n"
    )

    done = harness("release", str(recipe), home=tmp_path / "home")

    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("  line")]
    assert len(lines) == 5
    for what in ("domain", "tune.rank", "epoch", "gates[0]", "gates[1].metric"):
        assert any(what in line for line in lines), what
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home").exists()


def test_json_errors_are_documents(tmp_path: Path) -> None:
    done = harness("check", str(tmp_path / "none.yaml"), "--json")

    assert done.returncode == 2
    document = json.loads(done.stdout)
    assert document["exit_code"] == 2
    assert document["problems"][0]["wanted"]


def test_an_unknown_run_is_bad_input(tmp_path: Path) -> None:
    done = harness("show", "nothing", home=tmp_path)

    assert done.returncode == 2
    assert "no run is called 'nothing'" in done.stderr


def test_no_runs_say_where_to_start(tmp_path: Path) -> None:
    done = harness("runs", home=tmp_path)

    assert done.returncode == 0
    assert done.stdout == ""
    assert "harness demo" in done.stderr
    assert json.loads(harness("runs", "--json", home=tmp_path).stdout) == []


def test_shipped_recipes_have_no_problems() -> None:
    done = harness("check", "recipes/demo.yaml")

    assert done.returncode == 0, done.stderr


def test_the_version_is_the_packages() -> None:
    from harness import __version__

    assert harness("--version").stdout.strip() == __version__
