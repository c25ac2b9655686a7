"""What answers on this device: logs that grow and rotate, shares, times, and the device's releases."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import NOW_S
from hypothesis import given
from hypothesis import strategies as st
from screen import check_golden, terminal
from typer.testing import CliRunner

from harness.tui.views.monitor import Service, quantile, summary_of

SIZES = [(80, 24), (100, 30), (160, 45)]


def logged(event: str, ago_s: float, **data: Any) -> str:
    when = datetime.fromtimestamp(NOW_S - ago_s, UTC).isoformat(timespec="milliseconds")
    source = {"release": "1a2b3c4d" * 8, "model": "e" * 64, "stage": "q4_0"}
    return json.dumps({"event": event, "time": when, **source, **data}) + "\n"


def asked(ago_s: float, total_ms: float, **data: Any) -> str:
    found = {
        "status": 200,
        "route": "edge",
        "band": "answer",
        "guard": None,
        "first_ms": total_ms / 2,
        **data,
    }
    return logged("request", ago_s, id="x", endpoint="chat", total_ms=total_ms, output_tok=4, **found)


def write_log(home: Path) -> Path:
    """Two servers; the first was asked 206 times within a day, and once before."""
    folder = home / "serving" / "legal-demo"
    folder.mkdir(parents=True)
    lines = [
        asked(90_000, 9000.0),
        logged("start", 80_000, url="http://127.0.0.1:8080", signature="signed by ana"),
    ]
    lines += [asked(400.0 * at, 40.0 + at) for at in range(180)]
    lines += [asked(60.0, 300.0, route="server", band="escalate") for _ in range(15)]
    lines += [asked(50.0, 80.0, route="review", band="abstain", guard="personal") for _ in range(5)]
    lines += [asked(30.0, 5.0, status=503, route=None, band=None) for _ in range(6)]
    lines.append(logged("switch", 20.0, before="9f8e7d6c" * 8, ms=412.0))
    (folder / "requests.1.jsonl").write_text("".join(lines[:100]))
    (folder / "requests.jsonl").write_text("".join(lines[100:]))
    other = home / "serving" / "support"
    other.mkdir()
    (other / "requests.jsonl").write_text(asked(10.0, 55.0))
    return folder


def read(folder: Path) -> Service:
    service = Service(folder)
    while service.look(limit=7):
        pass
    return service


def test_a_day_is_summed_up_by_who_answered_and_how_long_it_took(home: Path) -> None:
    found = summary_of(read(write_log(home)), NOW_S)
    assert (found.n, found.n_errors) == (206, 6)
    assert found.routes == {"edge": 180, "server": 15, "review": 5}
    assert found.bands == {"answer": 180, "escalate": 15, "abstain": 5}
    assert found.guards == {"personal": 5}
    # 180 answers of 40 … 219 ms, five of 80 and fifteen of 300: the 100th is 134 ms, the 190th 300 ms.
    assert found.total_ms == (134.0, 300.0)
    assert sum(found.by_hour) == 206


def test_a_log_is_read_once_while_it_grows_and_is_renamed(home: Path) -> None:
    folder = write_log(home)
    service = read(folder)
    before = len(service.requests)
    active = folder / "requests.jsonl"
    with active.open("a") as file:
        file.write(asked(1.0, 1.0) + '{"event": "request", "time": "2026')
    assert service.look() is False
    assert len(service.requests) == before + 1
    with active.open("a") as file:
        file.write('-11-22T10:00:00+00:00", "status": 200}\n')
    active.rename(folder / "requests.2.jsonl")
    active.write_text(asked(0.5, 2.0))
    service.look()
    assert len(service.requests) == before + 3


@pytest.mark.parametrize(
    "line", ["", "{", "[1]", "7", '{"event": 3}', '{"event": "request", "time": "never"}']
)
def test_a_line_that_is_none_is_passed_over(line: str, tmp_path: Path) -> None:
    (tmp_path / "requests.jsonl").write_text(f"{line}\n{asked(1.0, 2.0)}")
    assert len(read(tmp_path).requests) == 1


@given(values=st.lists(st.integers(0, 1000), min_size=1), share=st.floats(0.01, 1.0))
def test_a_quantile_is_the_smallest_value_that_holds_so_many(values: list[int], share: float) -> None:
    found = quantile(sorted(map(float, values)), share)
    assert found is not None
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    assert sum(value < found for value in values) < share * len(values) + 1e-9


def test_nothing_has_no_quantile() -> None:
    assert quantile([], 0.95) is None


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_the_monitor(size: tuple[int, int], home: Path) -> None:
    write_log(home)
    async with terminal(home, size=size) as screen:
        check_golden(f"monitor-{size[0]}x{size[1]}", await screen.press("8"))


async def test_the_monitor_in_ascii(home: Path) -> None:
    write_log(home)
    async with terminal(home, ascii=True) as screen:
        assert (await screen.press("8")).isascii()


async def test_the_cursor_shows_another_server(home: Path) -> None:
    write_log(home)
    async with terminal(home) as screen:
        assert "p50 67 ms" in await screen.press("8")
        text = await screen.press("j")
        assert "p50 55 ms" in text
        assert "▌support" in text
        await screen.press("y")
        assert screen.copied == ["harness monitor"]


async def test_nothing_served_says_how_to_begin(home: Path) -> None:
    async with terminal(home) as screen:
        assert "harness serve RELEASE" in await screen.press("8")


def test_the_command_says_the_same(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.cli import app

    write_log(home)
    monkeypatch.setenv("HARNESS_HOME", str(home))
    monkeypatch.setattr("time.time", lambda: NOW_S)
    shown = CliRunner().invoke(app, ["monitor", "--json"])
    served = json.loads(shown.stdout)["served"]
    assert [(one["service"], one["n"]) for one in served] == [("legal-demo", 206), ("support", 1)]
    assert "legal-demo" in CliRunner().invoke(app, ["monitor"]).stdout


async def test_a_device_that_cannot_be_read_is_no_reason_to_stop(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "device" / "models" / "demo" / "current"
    link.parent.mkdir(parents=True)
    link.symlink_to("/etc/passwd")
    monkeypatch.setenv("HARNESS_DEVICE", str(tmp_path / "device"))
    async with terminal(home) as screen:
        text = await screen.press("8")
    assert "INSTALLED" in text
    assert "can't be read" in text
