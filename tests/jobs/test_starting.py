"""Starting, joining and stopping runs, with a model that needs no time: everything but the process is canned."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import DataError
from harness.jobs import launch, lease
from harness.jobs.journal import Journal
from harness.jobs.store import RunState, last_event, run_state
from harness.watch import Interrupt
from tests.jobs.test_lease import holder_process

SUITE = """\
suite: sums
domain: shared
task: classify
labels: [even, odd]
records: {train: records.jsonl, eval: records.jsonl}
prompt: {user: '{{ input }}'}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a suite and a scripted model that has it right."""
    rows = [{"id": f"r{n}", "input": f"{n}", "target": ("even", "odd")[n % 2]} for n in range(4)]
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = [{"id": row["id"], "logprobs": {row["target"]: -0.1}} for row in rows]
    (tmp_path / "model.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    (tmp_path / "suite.yaml").write_text(SUITE)
    return tmp_path


def start(place: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "harness", *arguments], cwd=place, text=True,
        env={**os.environ, "HARNESS_HOME": str(place / "home"), "COLUMNS": "80"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def prepared(place: Path, **options: object) -> Path:
    return launch.prepare(
        place / "home", "r-1", job="nothing", title="t", command=[], document={}, lock="", options=options
    )


def test_three_that_start_one_run_get_one_result(place: Path) -> None:
    (place / "random.py").write_text("raise SystemExit('imported from the working directory')")
    racers = [
        start(place, "eval", "suite.yaml", "--model", "scripted:model.jsonl", "--json") for _ in range(3)
    ]
    ends = [(*racer.communicate(), racer.returncode) for racer in racers]

    assert [end[2] for end in ends] == [0, 0, 0], ends
    cards = [json.loads(end[0])["scorecard"] for end in ends]
    assert cards[0] == cards[1] == cards[2]
    assert [r["score"] for r in cards[0]["readings"] if r["metric"] == "accuracy"] == [1.0]

    shown = start(place, "eval", "suite.yaml", "--model", "scripted:model.jsonl")
    out, err = shown.communicate()
    assert shown.returncode == 0, err
    assert "accuracy" in out
    assert "1.000" in out


def test_a_run_goes_on_where_it_was_ordered(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ordered = start(place, "eval", "suite.yaml", "--model", "scripted:model.jsonl", "--detach", "--json")
    folder = place / "home" / "runs" / json.loads(ordered.communicate()[0])["run"]
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    joined = start(place, "attach", folder.name, "--json")
    assert (joined.wait(), run_state(folder)) == (0, RunState.DONE)

    launch.start(folder)
    again = start(place, "attach", folder.name, "--json")

    assert again.wait() == 0
    assert run_state(folder) is RunState.DONE


def test_a_worker_that_cannot_work_says_why_in_its_journal(place: Path) -> None:
    folder = prepared(place)
    launch.start(folder)

    event = last_event(folder)
    assert event is not None
    assert event.name == "run.failed"
    assert "'nothing'" in event.data["error"]


def test_a_run_at_work_is_not_asked_for_something_else(place: Path) -> None:
    folder = prepared(place, until="train", out="a")
    process = holder_process(folder)
    try:
        assert prepared(place, until="train", out="a") == folder
        with pytest.raises(lease.LeaseHeldError, match="something else"):
            prepared(place, until="release", out="a")
    finally:
        process.kill()
        process.wait()

    prepared(place, until="release", out="a")
    assert json.loads((folder / "manifest.json").read_text())["options"]["until"] == "release"


def test_a_manifest_of_something_else_is_refused_with_a_way_out(place: Path) -> None:
    (prepared(place) / "manifest.json").write_text("[]")

    with pytest.raises(DataError, match=r"manifest\.json") as caught:
        prepared(place)
    assert "--fresh" in caught.value.hint


def test_starting_a_run_withdraws_the_wish_to_stop_it(place: Path) -> None:
    folder = prepared(place)
    process = holder_process(folder)
    (folder / "cancel").touch()

    assert launch.start(folder) == process.pid
    assert not (folder / "cancel").exists()
    process.kill()
    process.wait()


def test_a_run_that_was_stopped_now_was_cancelled_and_did_not_die(place: Path) -> None:
    folder = prepared(place)
    Journal(folder / "events.jsonl").write("run.start")
    process = holder_process(folder)

    launch.cancel(folder, now=True)

    assert process.wait() == -signal.SIGKILL
    assert run_state(folder) is RunState.CANCELLED
    with pytest.raises(DataError, match="not running"):
        launch.cancel(folder)


def test_the_first_interrupt_asks_and_the_second_kills(place: Path) -> None:
    folder = prepared(place)
    before = signal.getsignal(signal.SIGINT)
    interrupt = Interrupt(folder)
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupt()  # nobody works yet: the start itself is interrupted
        interrupt.presses, interrupt.is_watching = 0, True
        process = holder_process(folder)
        interrupt()
        assert (folder / "cancel").exists()
        assert process.poll() is None
        interrupt()
        assert process.wait() == -signal.SIGKILL
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_log_shows_the_newest_worker_alone(place: Path) -> None:
    folder = prepared(place)
    (folder / "stderr.log").write_text(f"{launch.STARTED} a\nold trouble\n{launch.STARTED} b\nnew trouble\n")
    assert launch.log_end(folder) == "new trouble"

    with (folder / "stderr.log").open("a") as log:
        log.write(f"{launch.STARTED} c\n")
    assert launch.log_end(folder) == ""
    assert "memory" in launch.why_died(folder)


def test_a_native_crash_is_exit_4_and_named(place: Path) -> None:
    (place / "model.jsonl").write_text('{"id": "*", "logprobs": {"even": -0.1}, "delay_ms": 60000}\n')
    process = start(place, "eval", "suite.yaml", "--model", "scripted:model.jsonl", "--json")
    assert process.stderr is not None
    assert "starts" in process.stderr.readline()
    folder = next((place / "home" / "runs").iterdir())
    holder = lease.holder(folder)
    assert holder is not None

    os.kill(holder.pid, signal.SIGSEGV)
    document = json.loads(process.communicate()[0])

    assert (process.returncode, document["exit_code"]) == (4, 4)
    assert "Segmentation fault" in document["error"]
    assert "native code crashed" in document["hint"]


def test_a_long_last_line_is_still_the_last(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    journal.write("run.start")
    journal.write("eval.batch", slices={f"document={n}": [1, 1] for n in range(9000)})
    event = last_event(tmp_path)

    assert event is not None
    assert (event.seq, event.name) == (2, "eval.batch")


@pytest.mark.parametrize("limit_bytes", [120, 200, 317])
def test_a_full_disk_leaves_whole_lines(tmp_path: Path, limit_bytes: int) -> None:
    script = (
        "import resource, sys\nfrom pathlib import Path\nfrom harness.jobs.journal import Journal\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}))\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "for n in range(99):\n    journal.write('note', text='x' * n)\n"
    )
    path = tmp_path / "events.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
    )

    assert "File too large" in done.stderr
    lines = path.read_bytes()
    assert lines.endswith(b"\n")
    assert [json.loads(line)["seq"] for line in lines.splitlines()] == list(range(1, lines.count(b"\n") + 1))
