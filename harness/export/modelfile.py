"""How other runtimes start the file of a release: Ollama's Modelfile and llama-server's command line."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from harness.export.header import Header


class Turns(NamedTuple):
    """A chat template that only puts fixed text around each turn."""

    default: str
    """What stands before the first turn where no system turn is given."""
    system: tuple[str, str]
    """Before and after the text."""
    user: tuple[str, str]
    assistant: tuple[str, str]
    answer: str
    """What the model's answer begins behind."""


def modelfile(model_file: str, header: Header | None = None) -> str:
    """What `ollama create` reads: greedy, ending where the model's answers end.

    Ollama's templates are Go's, the GGUF's is Jinja: one is written here only where the GGUF's was shown, on five
    conversations, to put fixed text around each turn. Otherwise Ollama takes the file's own.

    Source: https://github.com/ollama/ollama/blob/main/docs/modelfile.mdx.
    """
    lines = [f"FROM ./{model_file}", "PARAMETER temperature 0"]
    if header and header.context_tok:
        lines.append(f"PARAMETER num_ctx {min(header.context_tok, 8192)}")
    if header and header.end_text and _is_plain(header.end_text):
        lines.append(f"PARAMETER stop {json.dumps(header.end_text, ensure_ascii=False)}")
    template = _go_template(turns_of(header)) if header else None
    if template:
        lines.append(f'TEMPLATE """{template}"""')
    return "\n".join(lines) + "\n"


def llama_server(model_file: str) -> str:
    """The command line that serves the file to this machine alone, greedy, by the template inside the file."""
    return f"llama-server -m {shlex.quote(model_file)} --host 127.0.0.1 --port 8080 --jinja --temp 0"


def turns_of(header: Header) -> Turns | None:
    """The fixed text around each turn; None where the template does more than that, or refuses a system turn."""
    if len(header.rendered) != 5 or None in header.rendered:
        return None
    alone, with_system, two, *_ = (str(text) for text in header.rendered)
    try:
        before_system, rest = with_system.split("S1")
        between, _ = rest.split("U1")
        before_user, asked = alone.split("U1")
        _, rest = two.split("U1")
        answered, rest = rest.split("A1")
        to_user, _ = rest.split("U2")
    except ValueError:
        return None
    # What stands between two turns is the end of the one and the beginning of the other; `_rendered` shows whether
    # it was cut at the right place.
    user_begin = _begin(_shared_end(between, to_user), header.end_text)
    answer = _begin(_shared_end(answered, asked), header.end_text)
    if not before_user.endswith(user_begin):
        return None
    turns = Turns(
        default=before_user.removesuffix(user_begin),
        system=(before_system, between.removesuffix(user_begin)),
        user=(user_begin, asked.removesuffix(answer)),
        assistant=(answer, to_user.removesuffix(user_begin)),
        answer=answer,
    )
    return turns if _rendered(turns) == header.rendered else None


def _shared_end(a: str, b: str) -> str:
    n = 0
    while n < min(len(a), len(b)) and a[-1 - n] == b[-1 - n]:
        n += 1
    return a[len(a) - n :]


def _begin(shared: str, end_text: str | None) -> str:
    """What two texts between turns end with, less the end of the turn before: it ends with its token and its line."""
    if not end_text or end_text not in shared:
        return shared
    behind = shared[shared.rindex(end_text) + len(end_text) :]
    return behind.removeprefix("\n")


def _rendered(turns: Turns) -> tuple[str, ...]:
    """What the turns make of the five conversations."""
    user, other = turns.user[0] + "U1" + turns.user[1], turns.user[0] + "U2" + turns.user[1]
    system = turns.system[0] + "S1" + turns.system[1]
    said = turns.assistant[0] + "A1" + turns.assistant[1]
    return (
        turns.default + user + turns.answer,
        system + user + turns.answer,
        turns.default + user + said + other + turns.answer,
        system + user + said + other + turns.answer,
        turns.default + user + said + turns.answer,
    )


def _go_template(turns: Turns | None) -> str | None:
    if turns is None:
        return None
    pieces = [turns.default, *turns.system, *turns.user, *turns.assistant, turns.answer]
    if not all(map(_is_plain, pieces)):
        return None
    default = f"{{{{ if not .System }}}}{turns.default}{{{{ end }}}}" if turns.default else ""
    roles = "".join(
        f'{{{{ {word} eq .Role "{role}" }}}}{begin}{{{{ .Content }}}}{end}'
        for word, role, (begin, end) in (
            ("if", "system", turns.system),
            ("else if", "user", turns.user),
            ("else if", "assistant", turns.assistant),
        )
    )
    return f"{default}{{{{ range .Messages }}}}{roles}{{{{ end }}}}{{{{ end }}}}{turns.answer}"


def _is_plain(text: str) -> bool:
    """Whether the text is text in a Modelfile and in a Go template too: nothing that either would obey."""
    return (
        not any(mark in text for mark in ("{{", "}}", '"""', "\\")) and text.replace("\n", "").isprintable()
    )
