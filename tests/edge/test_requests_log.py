"""The request log: what is in it, how it is rotated, and that no disk holds an answer up."""

from __future__ import annotations

import hmac
import json
import resource
import signal
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from harness.edge.metrics import Metrics
from harness.edge.requests_log import KEPT_FILES, RequestLine, RequestLog, masked_text, rotated_files

SOURCE = {"release": "r" * 64, "model": "m" * 64, "stage": "q4_0"}
DOCS = Path(__file__).parents[2] / "docs" / "serving.md"


def line(n: int = 0, **more: Any) -> RequestLine:
    return RequestLine(id=f"request-{n}", endpoint="chat", status=200, **more)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(row) for row in path.read_text().splitlines()]


def test_every_field_of_the_log_is_documented_and_there_is_no_other(tmp_path: Path) -> None:
    log = RequestLog(tmp_path)
    log.request(line(input="secret words", answer="more of them"), SOURCE)
    log.close()

    (found,) = read(log.path)
    named = DOCS.read_text().split("## The request log")[1]
    assert [key for key in found if f"`{key}`" not in named] == []
    assert set(found) == {"event", "time", *SOURCE, *(field.name for field in fields(RequestLine))} - {
        "input",
        "answer",
    }
    assert "secret" not in log.path.read_text()


def test_files_are_renamed_when_full_and_the_oldest_go(tmp_path: Path) -> None:
    log = RequestLog(tmp_path, limit_bytes=1_500)
    for n in range(60):
        log.request(line(n), SOURCE)
    log.close()

    kept = rotated_files(tmp_path)
    assert len(kept) == KEPT_FILES - 1
    rows = [row["id"] for number in sorted(kept) for row in read(kept[number])] + [
        row["id"] for row in read(log.path)
    ]
    newest = [f"request-{n}" for n in range(60)][-len(rows) :]
    assert rows == newest
    assert all(path.stat().st_size <= 1_500 for path in kept.values())


def test_hashes_are_the_same_for_the_same_text_and_need_the_devices_key(tmp_path: Path) -> None:
    first = RequestLog(tmp_path / "a")
    again = RequestLog(tmp_path / "a")
    other = RequestLog(tmp_path / "b")

    key = (tmp_path / "a" / "hash.key").read_bytes()
    assert first.hashed("x") == again.hashed("x") == hmac.new(key, b"x", "sha256").hexdigest()
    assert first.hashed("x") != other.hashed("x")
    assert oct((tmp_path / "a" / "hash.key").stat().st_mode & 0o777) == "0o600"
    for log in (first, again, other):
        log.close()


def test_a_full_disk_loses_lines_that_are_counted_and_leaves_no_half_of_one(tmp_path: Path) -> None:
    lost: list[int] = []
    log = RequestLog(tmp_path, on_lost=lambda: lost.append(1))
    log.request(line(0), SOURCE)
    log.close()
    size = log.path.stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    full = RequestLog(tmp_path, on_lost=lambda: lost.append(1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))  # writes end in the middle of a line
    try:
        full.request(line(1), SOURCE)
        full.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)

    assert [row["id"] for row in read(log.path)] == ["request-0"]
    assert lost == [1]


def test_a_folder_that_can_not_be_made_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    lost: list[int] = []
    log = RequestLog(tmp_path / "file" / "below", on_lost=lambda: lost.append(1))

    log.request(line(), SOURCE)
    log.close()

    assert lost == [1]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("nothing here", "nothing here"),
        ("mail ann@acme-mail.com or +44 20 7946 0958.", "mail [email] or [phone]."),
        ("card 4111 1111 1111 1111", "card [card]"),
    ],
)
def test_personal_data_is_masked_by_its_kind(text: str, masked: str) -> None:
    assert masked_text(text) == masked


def test_metrics_are_in_prometheus_form() -> None:
    metrics = Metrics()
    metrics.count("requests_total", endpoint='a"b\\c\nd', status="200")
    for seconds in (0.01, 0.2, 99.0):
        metrics.observe("request_seconds", seconds)

    rows = metrics.text([("engine_memory_megabytes", {}, None), ("under_way", {}, 0)]).splitlines()

    assert 'harness_requests_total{endpoint="a\\"b\\\\c\\nd",status="200"} 1' in rows
    assert 'harness_request_seconds_bucket{le="0.01"} 1' in rows
    assert 'harness_request_seconds_bucket{le="0.2"} 2' in rows
    assert 'harness_request_seconds_bucket{le="60"} 2' in rows
    assert 'harness_request_seconds_bucket{le="+Inf"} 3' in rows
    assert "harness_request_seconds_count 3" in rows
    assert "harness_under_way 0" in rows
    assert not [row for row in rows if "engine_memory" in row]
