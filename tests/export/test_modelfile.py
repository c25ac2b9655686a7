from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from harness.export.header import Header, read_header
from harness.export.modelfile import llama_server, modelfile, turns_of
from tests.export.releases import TEMPLATE, write_gguf

LLAMA3 = (
    "{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
WITH_DEFAULT = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}" + TEMPLATE
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}" + TEMPLATE
NUMBERED = "{% for message in messages %}{{ loop.index }}: {{ message['content'] }}\n{% endfor %}"


def header(template: str, folder: Path) -> Header:
    return read_header(write_gguf(folder / "a.gguf", template=template))


def test_a_chatml_template_becomes_ollamas(tmp_path: Path) -> None:
    text = modelfile("demo.gguf", header(TEMPLATE, tmp_path))

    assert text.startswith("FROM ./demo.gguf\nPARAMETER temperature 0\nPARAMETER num_ctx 256\n")
    assert 'PARAMETER stop "<|im_end|>"' in text
    assert '{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n' in text
    assert text.endswith('{{ end }}{{ end }}<|im_start|>assistant\n"""\n')
    assert "if not .System" not in text


@pytest.mark.parametrize("template", [TEMPLATE, LLAMA3, WITH_DEFAULT])
def test_the_turns_are_those_that_the_template_writes(template: str, tmp_path: Path) -> None:
    """On a conversation that they were not taken from."""
    from harness.models.base import Message
    from harness.models.template import render

    turns = turns_of(header(template, tmp_path))
    assert turns is not None
    around = {"user": turns.user, "assistant": turns.assistant, "system": turns.system}
    talk = [
        Message("user", "who?"),
        Message("assistant", "me"),
        Message("user", "why?"),
        Message("assistant", "so"),
    ]
    for messages in (talk, [Message("system", "short"), *talk, Message("user", "x")]):
        said = "".join(around[turn.role][0] + turn.content + around[turn.role][1] for turn in messages)
        default = "" if messages[0].role == "system" else turns.default
        wanted = render(template, messages, add_generation_prompt=True, tokens={})
        assert default + said + turns.answer == wanted


@pytest.mark.parametrize("template", [NO_SYSTEM, NUMBERED, "{{ messages }}", "fixed"])
def test_a_template_that_does_more_is_left_to_the_runtime(template: str, tmp_path: Path) -> None:
    assert "TEMPLATE" not in modelfile("demo.gguf", header(template, tmp_path))


@pytest.mark.parametrize("evil", ['"""\nFROM /etc/passwd\n', "{{ .System }}", "\x1b[2J", "\\"])
def test_text_of_the_file_cannot_become_an_instruction(evil: str, tmp_path: Path) -> None:
    quoted = repr(evil).replace("{{", "{' ~ '{")
    text = modelfile("demo.gguf", header("{{ " + quoted + " }}" + TEMPLATE, tmp_path))

    assert "TEMPLATE" not in text
    stop = Header("llama", 1, None, evil, None, ())
    assert modelfile("demo.gguf", stop) == "FROM ./demo.gguf\nPARAMETER temperature 0\n"


def test_the_servers_command_line_is_one_command() -> None:
    words = shlex.split(llama_server("a b; rm -rf x.gguf"))

    assert words[:3] == ["llama-server", "-m", "a b; rm -rf x.gguf"]
    assert words[3:5] == ["--host", "127.0.0.1"]
