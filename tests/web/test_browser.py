"""The terminal in a real browser: open, navigate, start a run, see it finish.

Needs chromium and chromedriver on the PATH, and the packages selenium and pyte; skipped where they are absent.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("textual_serve", reason="the extra `web` is not installed")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pyte = pytest.importorskip("pyte", reason="pyte is not installed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("chromedriver"), reason="no chromedriver on the PATH"),
]
LIMIT_S = 240.0
"""For a screen to show what was asked for: other work may hold every core."""
SPY = """
window.frames_seen = [];
const Real = window.WebSocket;
window.WebSocket = class extends Real {
  constructor(...args) {
    super(...args);
    this.addEventListener("message", async event => {
      const data = event.data instanceof Blob ? await event.data.arrayBuffer() : event.data;
      if (data instanceof ArrayBuffer)
        window.frames_seen.push(btoa(String.fromCharCode(...new Uint8Array(data))));
    });
  }
};
"""
"""Keeps what the page is sent: it is drawn on a canvas, from which no text can be read."""
RECIPE = """suite: tiny
domain: science
task: generate
records: {eval: eval.jsonl}
prompt: {user: "{{ input }}"}
repeat: 0
"""


class Window:
    """A browser window with the terminal in it, and its screen as text."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self._screen = pyte.Screen(200, 60)
        self._stream = pyte.ByteStream(self._screen)
        self._n_seen = 0

    def open(self, url: str) -> None:
        self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": SPY})
        self.driver.get(url)

    @property
    def text(self) -> str:
        frames = self.driver.execute_script("return window.frames_seen.slice(arguments[0])", self._n_seen)
        self._n_seen += len(frames)
        for frame in frames:
            self._stream.feed(base64.b64decode(frame))
        return "\n".join(self._screen.display)

    def at_rest(self) -> str:
        """The screen once nothing has come for half a second: what a key did is drawn by then."""
        before, text = "", self.text
        while text != before:
            time.sleep(0.5)
            before, text = text, self.text
        return text

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def click(self) -> None:
        """Gives the terminal the keyboard."""
        self.driver.find_element("css selector", ".xterm-screen, .textual-terminal, body").click()

    def wait_for(self, words: str) -> str:
        """The screen once it holds the words."""
        deadline = time.monotonic() + LIMIT_S
        while words not in (text := self.text):
            assert time.monotonic() < deadline, f"{words!r} was not shown within {LIMIT_S:.0f} s:\n{text}"
            time.sleep(0.1)
        return text


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working directory with a suite and a scripted model."""
    suites = tmp_path / "suites"
    suites.mkdir()
    (suites / "tiny.yaml").write_text(RECIPE)
    rows = [{"id": f"r{index}", "input": f"question {index}", "target": "yes"} for index in range(8)]
    (suites / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "answers.jsonl").write_text('{"id": "*", "text": "yes"}\n')
    return tmp_path


@pytest.fixture
def address(place: Path) -> Iterator[str]:
    """What `harness web` prints."""
    env = {**os.environ, "HARNESS_HOME": str(place / "home")}
    served = subprocess.Popen(
        [sys.executable, "-u", "-m", "harness", "web"], cwd=place, env=env, stdout=subprocess.PIPE, text=True
    )
    assert served.stdout is not None
    yield served.stdout.readline().strip()
    served.terminate()
    served.wait(30)
    served.stdout.close()


@pytest.fixture
def window() -> Iterator[Window]:
    options = webdriver.ChromeOptions()
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1400,900",
    ):
        options.add_argument(flag)
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield Window(driver)
    driver.quit()


def test_a_run_is_started_and_finished_in_a_browser(address: str, place: Path, window: Window) -> None:
    window.open(address)
    window.wait_for("No runs yet")
    assert "token" not in window.driver.current_url
    window.click()
    window.press("0")
    window.wait_for("suite   tiny")
    window.press("G")
    while "start › tiny" not in window.at_rest():
        window.press("k")
    window.press("m", *"\ue003" * 24, *"scripted:answers.jsonl", "\ue007")
    window.wait_for("enter scores scripted:answers.jsonl")
    window.press("\ue007")
    window.wait_for("Live")
    window.wait_for("✓ done")
    window.press("3")
    window.wait_for("8 of 8")
    runs = list((place / "home" / "runs").glob("*/result.json"))
    assert len(runs) == 1


def test_a_browser_without_the_token_is_refused(address: str, window: Window) -> None:
    window.open(address.partition("?")[0])
    assert "it holds the token" in window.driver.page_source
    assert window.text.strip() == ""
