"""What reviewers said, append-only: who, when, about which bytes, and why."""

from __future__ import annotations

import fcntl
import getpass
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.files import sha256_text

MAX_WHY_CHARS = 10_000


class Judgement(StrEnum):
    """What a reviewer says of an answer."""

    RIGHT = "right"
    WRONG = "wrong"
    UNCLEAR = "unclear"
    """The question, the source or the answer can't be judged."""
    SKIPPED = "skipped"
    """Left for later, or for somebody else."""
    BAD_ITEM = "bad item"
    """The record itself is wrong."""
    UNDONE = "undone"
    """Takes the reviewer's last word on this sample back."""


@dataclass(frozen=True, slots=True)
class Review:
    """One reviewer's word on one answer."""

    sample: str
    by: str
    judgement: Judgement
    at: str
    """UTC, ISO 8601."""
    answer_digest: str
    """sha256 of the text that was judged: another answer to the same record is another question."""
    why: str = ""
    correction: str | None = None
    """What the right answer would have been."""
    rubric: dict[str, bool] = field(default_factory=dict)
    seconds: float | None = None
    """From the moment the item was shown."""
    is_adjudication: bool = False
    """Said in sight of what the reviewers who disagreed had said."""


def review_path(home: Path, run: str, stage: str, suite: str) -> Path:
    """Where the reviews of a stage's answers are kept."""
    return home / "reviews" / run / f"{stage}.{suite}.jsonl"


def reviewer() -> str:
    """Who sits here: `$HARNESS_REVIEWER`, else the account's name; empty where neither is known."""
    try:
        return os.environ.get("HARNESS_REVIEWER") or getpass.getuser()
    except (KeyError, OSError):
        return ""


def answer_digest(sample: Mapping[str, Any]) -> str:
    """The digest of what a reviewer is shown as the answer."""
    shown = sample.get("output") if sample.get("output") is not None else sample.get("answer")
    return sha256_text("" if shown is None else str(shown))


def say(
    path: Path, sample: Mapping[str, Any], by: str, judgement: Judgement, *, why: str = "",
    correction: str | None = None, rubric: Mapping[str, bool] | None = None, seconds: float | None = None,
    is_adjudication: bool = False,
) -> Review:  # fmt: skip
    """The review, on disk when this returns.

    Raises:
        DataError: nobody is named, or the reason is longer than a reason.
    """
    if not by.strip():
        raise DataError("a review needs a name", hint="--by NAME, or set HARNESS_REVIEWER")
    if len(why) > MAX_WHY_CHARS or len(correction or "") > MAX_WHY_CHARS:
        raise DataError(f"a comment has at most {MAX_WHY_CHARS:,} characters")
    review = Review(
        str(sample["id"]), by.strip(), judgement, datetime.now(UTC).isoformat(timespec="seconds"),
        answer_digest(sample), why, correction, dict(rubric or {}), seconds, is_adjudication,
    )  # fmt: skip
    _append(path, asdict(review))
    return review


def _append(path: Path, line: Mapping[str, Any]) -> None:
    """Adds one whole line, also where several people write at once, and cuts off what a crash left torn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        size = os.fstat(handle).st_size
        whole = _whole_bytes(handle, size)
        os.ftruncate(handle, whole)
        os.lseek(handle, whole, os.SEEK_SET)
        view = memoryview((json.dumps(line, ensure_ascii=True, allow_nan=False) + "\n").encode())
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _whole_bytes(handle: int, size: int) -> int:
    end = size
    while end > 0:
        start = max(0, end - 65_536)
        found = os.pread(handle, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def read_reviews(path: Path) -> list[Review]:
    """All that was said, oldest first; a torn last line is the end. Empty where there is no file.

    Raises:
        DataError: a whole line is no review.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    lines = data[: data.rfind(b"\n") + 1].splitlines()
    return [_parsed(path, number, line) for number, line in enumerate(lines, start=1)]


def _parsed(path: Path, number: int, line: bytes) -> Review:
    try:
        data = json.loads(line)
        return Review(**{**data, "judgement": Judgement(data["judgement"])})
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}, line {number}: no review: {error}") from error


def standing(reviews: Iterable[Review]) -> dict[tuple[str, str], Review]:
    """Each reviewer's last word on each sample, by (reviewer, sample); what was taken back is gone."""
    found: dict[tuple[str, str], Review] = {}
    for review in reviews:
        if review.judgement is Judgement.UNDONE:
            found.pop((review.by, review.sample), None)
        else:
            found[review.by, review.sample] = review
    return found
