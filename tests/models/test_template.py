"""Chat templates: as Transformers renders them, and never dearer than allowed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from harness.errors import ModelError
from harness.models.base import Message
from harness.models.chat import find_end_text, load_chat
from harness.models.template import render

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
BRACKETS = """{{ bos_token }}
{%- for message in messages %}
    {%- if message['role'] not in ['user', 'assistant'] %}
        {{- raise_exception('only user and assistant') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {{- '[INST] ' + message['content'] | trim + ' [/INST]' }}
    {%- else %}
        {%- generation %} {{ message['content'] }}{{ eos_token }}{%- endgeneration %}
    {%- endif %}
    {%- if loop.index > 50 %}{%- break %}{%- endif %}
{%- endfor %}"""
INDENTED = """
    {% for message in messages %}
        {% set kind = message.role | upper %}
{{ kind }}: {{ message.content | tojson }}
    {% endfor %}
    {% if add_generation_prompt %}
ASSISTANT:
    {% endif %}
"""
TALK = [Message("user", ' Grüße <b>"x"</b> \n'), Message("assistant", "ja"), Message("user", "日本 & co")]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.mark.parametrize("source", [CHATML, BRACKETS, INDENTED])
@pytest.mark.parametrize("is_open", [True, False])
def test_text_is_what_transformers_renders(source: str, is_open: bool) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    talk = [message._asdict() for message in TALK]
    (wanted,), _ = render_jinja_template(
        [talk], chat_template=source, add_generation_prompt=is_open, **TOKENS
    )

    assert render(source, TALK, add_generation_prompt=is_open, tokens=TOKENS) == wanted


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * (10 ** 9) }}",
        "{{ 10 ** (10 ** 10) }}",
        "{{ '%1000000000d' % 1 }}",
        "{% for i in range(10 ** 9) %}a{% endfor %}",
        "{% for i in range(99999) %}{{ messages[0].content * 10000 }}{% endfor %}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception('no system role') }}",
        "{{ messages[7].content.upper() }}",
        "{{ 1 / 0 }}",
        "{% for %}",
        "{{ nothing.here }}",
    ],
)
def test_a_hostile_or_broken_template_is_an_error_and_quick(source: str) -> None:
    began = time.process_time()

    with pytest.raises(ModelError, match="chat template"):
        render(source, [Message("user", "x" * 50)], add_generation_prompt=True, tokens={})

    assert time.process_time() - began < 5


def test_a_template_sees_the_same_date_every_day() -> None:
    text = render("{{ strftime_now('%d %b %Y') }}", [], add_generation_prompt=True, tokens={})

    assert text == "26 Jul 2024"


@pytest.mark.parametrize(
    ("source", "special", "wanted"),
    [
        (CHATML, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "<|im_end|>"),
        (BRACKETS, ["<s>", "</s>"], "</s>"),
        ("{% for m in messages %}{{ m.content }}<end><end2>{% endfor %}", ["<end2>", "<end>"], "<end>"),
        ("{% for m in messages %}{{ m.content }}\n{% endfor %}", ["<x>"], "</s>"),
    ],
)
def test_the_end_of_turn_is_what_the_template_writes_after_an_answer(
    source: str, special: list[str], wanted: str
) -> None:
    assert find_end_text(source, TOKENS, special) == wanted


def test_no_end_of_turn_anywhere_is_an_error() -> None:
    with pytest.raises(ModelError, match="no token after an answer"):
        find_end_text("{{ messages[-1].content }}", {}, ["<x>"])


def test_a_checkpoint_renders_and_encodes_as_its_tokenizer(tiny: Path) -> None:
    chat = load_chat(tiny)
    talk = [message._asdict() for message in TALK]

    ids = chat.encode(chat.render(TALK))

    wanted = chat.tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=True)
    assert ids == list(wanted["input_ids"])
    end = chat.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert (chat.end_text, chat.end_id, chat.end_ids) == ("<|im_end|>", end, (end,))
    assert chat.answer_ids("ja") == [*chat.encode("ja"), end]
    assert chat.decode([*chat.encode("ja 日本"), end]) == "ja 日本"


def test_a_template_that_doubles_the_first_token_is_refused(tiny: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(tiny, tmp_path / "double"))
    (folder / "chat_template.jinja").write_text("{{ bos_token }}{{ bos_token }}{{ messages[0].content }}")

    with pytest.raises(ModelError, match="twice"):
        load_chat(folder)


def test_a_checkpoint_without_a_template_is_refused(tiny: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(tiny, tmp_path / "bare"))
    (folder / "chat_template.jinja").unlink()

    with pytest.raises(ModelError, match="no chat template") as caught:
        load_chat(folder)

    assert "instruct" in caught.value.hint
