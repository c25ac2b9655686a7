"""Text that wants to be obeyed, in every place that a model, a data set or a file can write to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import SUITE, FakeRun
from hypothesis import given, settings
from hypothesis import strategies as st
from screen import terminal

from harness.files import write_json
from harness.text import visible
from harness.tui import plain
from harness.tui.comparisons import Answer
from harness.tui.context import PLAN, SCREENS
from harness.tui.views.cells import Span, fit, fit_line, line_width, safe, to_ascii, width, wrap

HOSTILE = {
    "markup": "[/INST] [bold red]x[/] [@click=app.quit]y[/]",
    "escape": "\x1b]0;owned\x07\x1b[2J\x1b[31mred",
    "c1": "\x9b2J\x9d0;owned\x9c\x90q",
    "osc52": "\x1b]52;c;b3duZWQ=\x07",
    "bidi": "abc\u202edcba\u2066x\u2069\u200f",
    "zero-width": "a\u200bb\u200dc\ufeffd\u2060\u00ad",
    "wide": "漢字テスト👩‍👩‍👧❤️🇩🇪",
    "combining": "a" + "\u0301" * 300,
    "breaks": "one\r\ntwo\x0b\x0c\u0085\u2028\u2029three\ttab\x00",
    "surrogate": "\ud800 private \ue000 unassigned \U000e0001",
    "long": "x" * 1_000_000,
}

EVENTS = ("request", "start", "switch", "rollback", "refused", "stop", "\x1b[2J[/INST]")


class HostileRun(FakeRun):
    """A run in which every text is hostile."""

    def __init__(self, home: Path, whole: str) -> None:
        self.whole = whole
        self.text = whole[:20_000]
        super().__init__(home, "hostile-00000000", n=6, train_steps=5)

    def write_manifest(self, title: str = "", created: str = "2026-11-22T09:00:00+00:00") -> None:
        super().write_manifest(self.text.encode("utf-8", "replace").decode(), created)

    def sample(self, index: int, accuracy: float) -> Any:
        made = super().sample(index, accuracy)
        text = self.text[:5000]
        probs = {text: 0.4, "other": 0.3}
        return replace(
            made, id=f"{index}{text}", gold=(text,), answer=text, output=f"out {self.whole}",
            error=text if index == 3 else None, unit=text, label_probs=probs, prompt_digest=text,
            slices={text: text, "contract": [text]},
        )  # fmt: skip

    def finish(self) -> HostileRun:
        """Leaves hostile events, scorecards and verdicts."""
        samples = [self.sample(index, 0.5) for index in range(6)]
        for stage in (
            "base",
            self.text[:40].replace("/", "_").replace("\x00", "_").encode("ascii", "ignore").decode(),
        ):
            folder = self.folder / "stages" / (stage.strip() or "x") / SUITE
            folder.mkdir(parents=True, exist_ok=True)
            lines = [json.dumps(sample.to_json()) for sample in samples]
            (folder / "samples.jsonl").write_text("\n".join([*lines, '{"batch": 0, "n": 6}']) + "\n")
            write_json(folder / "scorecard.json", _shown(self._card(stage)))
            write_json(folder.parent / "verdict.json", _shown(self._verdict(stage)))
        text = self.text
        served = self.folder.parents[1] / "serving" / "legal"
        served.mkdir(parents=True)
        found = dict.fromkeys(
            ("release", "stage", "route", "band", "guard", "first_ms", "url", "before", "ms"), text
        )
        lines = [{**found, "event": event, "time": "2026-11-22T10:00:00Z", "status": 200} for event in EVENTS]
        (served / "requests.jsonl").write_text("".join(json.dumps(_shown(line)) + "\n" for line in lines))
        finding = {"check": text, "what": text, "ids": [text], "is_fatal": True}
        checked = {"examples": text, "tokens": text, "findings": [finding, text]}
        write_json(self.folder / "preflight.json", _shown(checked))
        row = {"quant": text, "bytes": text, "is_picked": True, "reason": text}
        rows = [row, {"quant": "q8_0", "reason": text}, text]
        write_json(self.folder / "pick.json", _shown({"picked": text, "rows": rows}))
        write = self.journal.write
        write(
            "train.step",
            step=1,
            of=5,
            loss=1.0,
            lr=text,
            grad_norm=text,
            tok_s=text,
            eta_s=text,
            memory_mb=text,
        )
        write("train.checkpoint", step=1, path=text, digest=text)
        write("train.estimate", weights_mb=text, adapters_mb=3.0, total_mb=text, available_mb=text)
        write(
            "train.gate", step=1, checkpoint=text, n=text, score=text, kept=text, failed=text, is_vetoed=text
        )
        write(
            "train.gate",
            step=text,
            score=0.5,
            kept=0.5,
            failed=text,
            is_vetoed=False,
            is_best=True,
            action=text,
        )
        write("train.order", step=text, order=text)
        write("train.actual", expected=text, actual={"total_mb": text})
        write("run.start", run=text, job=text, title=text, pid=text, steps=[text, "b"], resumed=False)
        write("step.start", step=text, title=text, index=1, of=2)
        write("step.progress", step=text, done=1, total=2, unit=text, rate=1.0, eta_s=9.0, note=text)
        write(
            "eval.batch", stage=text, suite=text, done=3, total=9, correct=1, errors=1, slices={text: [3, 1]}
        )
        write("verdict", stage=text, verdict=text, worst={"rule": text, "slice": text}, path=text)
        write("fidelity", stage=text, parent=text, mean_kl=text, top1=text, token_parity=text)
        write("artifact", name=text, path=text, bytes=text, digest=text)
        write("note", level=text, text=self.whole)
        write(text, anything=text)
        write("run.failed", error=text, hint=text, exit_code=1)
        return self

    def _card(self, stage: str) -> dict[str, Any]:
        reading = {"metric": "accuracy", "n": 9, "hits": 3, "score": 0.3, "low": 0.1, "high": 0.6}
        readings = [{**reading, "slice": "all"}, {**reading, "slice": self.text}]
        return {
            "suite": SUITE, "stage": stage, "identity": self.text, "n": 9, "n_errors": 1, "n_truncated": 0,
            "readings": readings, "confusions": [[self.text, self.text, 3]],
        }  # fmt: skip

    def _verdict(self, stage: str) -> dict[str, Any]:
        rule = {
            "rule": self.text, "suite": self.text, "metric": self.text, "slice": self.text, "n": 9, "score": 0.3,
            "low": 0.1, "high": 0.6, "threshold": 0.8, "verdict": "FAIL", "reason": self.text, "needed": None,
        }  # fmt: skip
        return {"stage": stage, "identity": self.text, "lock": self.text, "verdict": "FAIL", "rules": [rule]}


def _shown(value: Any) -> Any:
    """The value with lone surrogates replaced: a file in UTF-8 can't hold them."""
    return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


INSIDE: dict[str, tuple[tuple[str, ...], ...]] = {
    "board": (("tab",), ("j",), ("enter",)), "samples": (("f",), ("enter",), ("escape",)), "diff": (("j",), ("tab",)),
    "export": (("j",),), "review": (("w",), ("U",)), "monitor": (("j",),), "start": (("j",),), "plan": (("j",), ("d",)),
}  # fmt: skip
"""What else a screen shows, by the keys that lead there."""


@pytest.mark.parametrize("name", HOSTILE)
async def test_no_screen_obeys_hostile_text(name: str, home: Path, place: Path) -> None:
    run = HostileRun(home, HOSTILE[name]).finish()
    _write_documents(place, HOSTILE[name])
    async with terminal(home) as screen:
        for shown in SCREENS:
            _check(await screen.open(shown), screen.segments(), 100)
            if shown == PLAN:
                screen.desk.screens.plan.plans.find = lambda words: _plan(HOSTILE[name][:5000])  # type: ignore[method-assign]
            for keys in INSIDE.get(shown, ()):
                _check(await screen.press(*keys), screen.segments(), 100)
            _check(await screen.press("question_mark"), screen.segments(), 100)
            await screen.press("question_mark")
        await screen.press("3", "slash")
        screen.app.query_one("Prompt").value = HOSTILE[name]  # type: ignore[attr-defined]
        _check(await screen.press("enter"), screen.segments(), 100)
        screen.desk.say(HOSTILE[name])
        screen.app.draw()
        _check(await screen.press(), screen.segments(), 100)
    assert run.folder.exists()


def _write_documents(place: Path, text: str) -> None:
    """A recipe and a suite whose every word is hostile."""
    for kind, folder in (("recipe", "recipes"), ("suite", "suites")):
        lines = [f"{key}: {text}\n" for key in (kind, "domain", "description", "base", "task")]
        (place / folder / "hostile.yaml").write_bytes("".join(lines).encode("utf-8", "replace"))


def _plan(text: str) -> Answer:
    recipe = {
        "recipe": text,
        "base": text,
        "suites": [text],
        "gates": [{"metric": text, "at_least": 0.5}],
        text: text,
    }
    return Answer(
        {"recipe": recipe, "obligations": [text], "reasons": [text], "open": [text], "estimates": text}, text
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_plain_text_obeys_nothing_either(name: str, home: Path) -> None:
    HostileRun(home, HOSTILE[name]).finish()
    for show in (plain.board, plain.live, plain.samples, plain.train, plain.export, plain.monitor):
        text = show(home)
        assert not [char for char in text if char != "\n" and visible(char) != char]
        assert max(map(width, text.splitlines())) <= 100


def _check(text: str, lines: list[list[Any]], cells: int) -> None:
    assert not [char for char in text if char != "\n" and visible(char) != char]
    for line in lines:
        assert sum(width(segment.text) for segment in line) == cells


anything = st.text(st.characters(), max_size=80) | st.sampled_from(sorted(HOSTILE.values(), key=len)[:-1])


@given(text=anything, cells=st.integers(0, 60), align=st.sampled_from("<>"))
def test_a_fitted_text_has_its_width_and_nothing_to_obey(text: str, cells: int, align: str) -> None:
    fitted = fit(text, cells, align)
    assert width(fitted) == cells
    assert visible(fitted) == fitted


@given(texts=st.lists(anything, max_size=6), cells=st.integers(0, 60))
def test_a_fitted_line_has_its_width(texts: list[str], cells: int) -> None:
    assert line_width(fit_line([Span(text, "dim") for text in texts], cells)) == cells


@settings(max_examples=50)
@given(text=anything, cells=st.integers(1, 40), rows=st.integers(1, 6))
def test_a_wrapped_text_stays_in_its_box(text: str, cells: int, rows: int) -> None:
    parts = wrap(text, cells, rows=rows)
    assert len(parts) <= rows
    assert all(width(part) <= max(2, cells) for part in parts)
    assert all(visible(part) == part for part in parts)


@given(text=anything)
def test_making_safe_twice_changes_nothing(text: str) -> None:
    assert safe(safe(text)) == safe(text)


@given(text=st.text("✓✗●○◉┃━─│▌·█░▲▼⊘Δ…›→±┤└⏎—×−⠁⣿", max_size=20))
def test_the_signs_of_this_program_have_an_ascii_form_of_one_cell(text: str) -> None:
    assert to_ascii(text).isascii()
    assert width(to_ascii(text)) == width(text)
