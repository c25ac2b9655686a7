"""The peers of the contract tests, each made once a session."""

from __future__ import annotations

import pytest

from tests.contracts.peers import Peer, peer


@pytest.fixture(scope="session")
def inspect() -> Peer:
    return peer("inspect")


@pytest.fixture(scope="session")
def lm_eval() -> Peer:
    return peer("lm-eval")


@pytest.fixture(scope="session")
def junit_readers() -> Peer:
    return peer("junit")
