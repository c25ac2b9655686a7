from __future__ import annotations

import contextlib
import io
import json
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import DataError
from harness.export import header
from harness.export.header import parse, read_header
from harness.export.release import write_release
from harness.export.verify import file_identity, verify
from harness.files import sha256_file
from tests.export.releases import edit, make_contents, sign_again, write_gguf


def test_a_header_is_read_as_the_gguf_package_wrote_it(tmp_path: Path) -> None:
    found = read_header(write_gguf(tmp_path / "a.gguf"))

    assert (found.architecture, found.tensors, found.context_tok) == ("llama", 1, 256)
    assert found.end_text == "<|im_end|>"
    assert found.rendered[0] == "<|im_start|>user\nU1<|im_end|>\n<|im_start|>assistant\n"


def test_a_file_without_a_template_has_none(tmp_path: Path) -> None:
    found = read_header(write_gguf(tmp_path / "a.gguf", template=None))

    assert (found.template, found.rendered) == (None, ())


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(keys: bytes = b"", *, n_keys: int = 0, n_tensors: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_keys) + keys


HOSTILE = {
    "empty": b"",
    "magic alone": b"GGUF",
    "no GGUF": b"PK\x03\x04" * 10,
    "version": gguf(version=99),
    "endless keys": gguf(n_keys=2**63),
    "endless tensors": gguf(n_tensors=2**63),
    "endless text": gguf(struct.pack("<Q", 2**62), n_keys=1),
    "text past the end": gguf(struct.pack("<Q", 1000) + b"ab", n_keys=1),
    "endless array": gguf(text("a") + struct.pack("<IIQ", 9, 0, 2**62), n_keys=1),
    "array past the end": gguf(text("a") + struct.pack("<IIQ", 9, 10, 2**20), n_keys=1),
    "array of arrays": gguf(text("a") + struct.pack("<IIQ", 9, 9, 2**20) * 3, n_keys=1),
    "unknown type": gguf(text("a") + struct.pack("<I", 77), n_keys=1),
    "key said twice": gguf((text("a") + struct.pack("<IB", 0, 1)) * 2, n_keys=2),
    "tensor of five dimensions": gguf(text("t") + struct.pack("<I", 5) + bytes(60), n_tensors=1),
    "tensor past the end": gguf(text("t") + struct.pack("<IQIQ", 1, 8, 0, 2**40), n_tensors=1),
    "no architecture": gguf(),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_header_is_an_error(what: str, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(HOSTILE[what])

    with pytest.raises(DataError):
        read_header(path)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_mutant_of_a_header_ends_the_parser_otherwise(good: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(good) - 9))
    mutant = good[:at] + data.draw(st.binary(min_size=1, max_size=8)) + good[at + 8 :]

    with contextlib.suppress(DataError, struct.error):
        parse(io.BytesIO(mutant), len(mutant))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_gguf(tmp_path_factory.mktemp("good") / "a.gguf").read_bytes()


TEMPLATES = {
    "eats memory": "{{ 'a' * (10 ** 10) }}",
    "eats memory in steps": "{% set ns = namespace(x='a' * 1000000) %}{% for i in range(9999) %}"
    "{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "never ends": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "reaches for the system": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "no template": "{% if %}",
    "refuses everything": "{{ raise_exception('no') }}",
}


@pytest.mark.parametrize("what", TEMPLATES)
def test_a_hostile_chat_template_is_refused_by_name_and_stops_nobody(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Consistently put into a release: file, identity, verdict and manifest fit, the template does not."""
    monkeypatch.setattr(header, "CPU_S", 3)
    release = write_release(tmp_path / "release", make_contents(tmp_path)).folder
    model = write_gguf(release / "clauses-q4_0.gguf", template=TEMPLATES[what])
    identity = file_identity(sha256_file(model))
    edit(release, "verdicts/q4_0.json", lambda d: d.update(identity=identity))
    edit(release, "scorecards/q4_0/clauses.json", lambda d: d.update(identity=identity))
    edit(release, "manifest.json", lambda d: d["model"].update(identity=identity))
    sign_again(release)

    assert [check.name for check in verify(release).failed] == ["header"]


def test_a_hostile_header_in_a_release_is_refused_by_name(tmp_path: Path) -> None:
    release = write_release(tmp_path / "release", make_contents(tmp_path)).folder
    (release / "clauses-q4_0.gguf").write_bytes(HOSTILE["endless array"])
    sign_again(release)

    assert "header" in {check.name for check in verify(release).failed}


def test_a_sparse_file_costs_nothing_to_look_into(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf")
    os.truncate(path, 2**38)

    assert read_header(path).tensors == 1


def test_what_the_child_says_is_small(tmp_path: Path) -> None:
    found = read_header(write_gguf(tmp_path / "a.gguf", template="{{ 'x' * 1000000 }}"))

    assert len(json.dumps(found)) < 10_000
    assert not any(found.rendered)
