"""The soak of benchmarks/serve_soak.py, short: every request is answered or fails visibly, exactly once."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.edge.process import tiny_gguf
from tests.edge.serving import calibration, shared_release


def soak_script() -> Any:
    """By its file: opacus brings a package `benchmarks` of its own."""
    path = Path(__file__).parents[2] / "benchmarks" / "serve_soak.py"
    spec = importlib.util.spec_from_file_location("serve_soak", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["serve_soak"] = module  # its dataclass looks its own module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_nothing_is_lost_or_mixed_up_while_clients_misbehave_and_the_engine_dies(tmp_path: Path) -> None:
    release = shared_release(gguf=str(tiny_gguf()), fitted=calibration(threshold=None))

    report = soak_script().soak(
        release.folder, tmp_path / "home", seconds=20, clients=8, kills=2, seed=17, threads=1
    )

    assert report["ok"], report["problems"]
    assert report["children_killed"] == 2
    assert report["requests"] > 100
    assert report["outcomes"]["chat: answered"] > 10
    assert report["logged_requests"] > report["outcomes"]["chat: answered"]
