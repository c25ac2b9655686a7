"""Training files → examples: conversations, prompts with completions, and preferences, read strictly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from harness.data.records import RecordsError, Row, read_rows
from harness.errors import DataError, Problem
from harness.models.base import Message, Prompt
from harness.text import visible
from harness.train.batches import Example

Kind = Literal["messages", "completion", "preferences"]
KEYS: Mapping[Kind, tuple[str, ...]] = {
    "messages": ("messages",),
    "completion": ("prompt", "completion"),
    "preferences": ("prompt", "chosen", "rejected"),
}
ROLES = ("system", "user", "assistant")
HUB = "hub:"
_ROWS = "conversations with `messages`, `prompt` with `completion`, or `prompt` with `chosen` and `rejected`"


def read_examples(
    path: Path, *, kind: Kind | None = None, over_length: str = "error", max_prompt_tok: int | None = None
) -> list[Example]:
    """The examples of a `.jsonl`, `.csv` or `.parquet` file, in its order; all of one kind.

    `kind` None takes that of the first row. A row without `id` is called after its line. `over_length` says
    what happens to an example that is too long: `error`, `skip`, or `truncate`, which cuts the context and
    never an answer.

    Raises:
        RecordsError: rows that are of no kind or another one, roles out of order, repeated ids. All at once.
    """
    rows = read_rows(path)
    kind = kind or kind_of(rows[0].data) if rows else kind
    problems: list[Problem] = []
    if kind is None:
        found = ", ".join(rows[0].data) if rows else "no rows"
        raise RecordsError([Problem(str(path), rows[0].line if rows else None, "", found, _ROWS)])
    reader = _Reader(path, kind, over_length, max_prompt_tok, problems)
    examples = [example for row in rows if (example := reader.example(row)) is not None]
    if problems:
        raise RecordsError(problems)
    return examples


def kind_of(row: Mapping[str, Any]) -> Kind | None:
    """What the row is by its keys; None where it is nothing that can be trained on."""
    return next((kind for kind, keys in KEYS.items() if all(key in row for key in keys)), None)


def hub_file(reference: str) -> Path:
    """The file that `hub:owner/name/path` means, in the local hub cache; nothing is downloaded.

    Raises:
        DataError: no such reference, or the cache does not have it.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    owner, _, rest = reference.removeprefix(HUB).partition("/")
    name, _, file = rest.partition("/")
    if not (owner and name and file):
        raise DataError(f"{reference}: no file of a data set", hint="hub:owner/name/path/in/it.jsonl")
    try:
        return Path(hf_hub_download(f"{owner}/{name}", file, repo_type="dataset", local_files_only=True))
    except (LocalEntryNotFoundError, EntryNotFoundError, OSError, ValueError) as error:
        get = f"hf download --repo-type dataset {owner}/{name} {file}"
        raise DataError(f"{reference}: not in the local hub cache", hint=f"with a network: {get}") from error


class _Reader:
    """Rows of one file into examples; what is wrong goes to `problems`."""

    def __init__(
        self, path: Path, kind: Kind, over_length: str, max_prompt_tok: int | None, problems: list[Problem]
    ) -> None:
        self._path, self._kind, self._problems = path, kind, problems
        self._over_length, self._max_prompt_tok = over_length, max_prompt_tok
        self._line_of: dict[str, int] = {}

    def example(self, row: Row) -> Example | None:
        before = len(self._problems)
        missing = [key for key in KEYS[self._kind] if key not in row.data]
        if missing:
            self._note(row, ".".join(missing[:1]), "missing", f"{self._kind}: {', '.join(KEYS[self._kind])}")
            return None
        id_ = self._id(row)
        made = {"messages": self._messages, "completion": self._completion, "preferences": self._preference}
        example = made[self._kind](row, id_)
        return example if len(self._problems) == before else None

    def _id(self, row: Row) -> str:
        id_ = str(row.data.get("id") or f"{self._path.stem}:{row.line}")
        if id_ in self._line_of:
            self._note(
                row, "id", visible(id_, limit_chars=60), f"an id of its own; line {self._line_of[id_]} has it"
            )
        self._line_of[id_] = row.line
        return id_

    def _messages(self, row: Row, id_: str) -> Example | None:
        turns = self._turns(row, "messages")
        if not turns:
            return None
        if turns[-1].role != "assistant":
            self._note(row, "messages", f"a last turn of {turns[-1].role}", "an answer to learn at the end")
            return None
        has_more = any(turn.role == "assistant" for turn in turns[:-1])
        return self._made(row, id_, turns[:-1], turns[-1].content, every_turn=has_more)

    def _completion(self, row: Row, id_: str) -> Example | None:
        prompt, answer = self._prompt(row), self._text(row, "completion")
        return self._made(row, id_, prompt, answer) if prompt and answer else None

    def _preference(self, row: Row, id_: str) -> Example | None:
        prompt, chosen, rejected = (
            self._prompt(row),
            self._answer(row, "chosen"),
            self._answer(row, "rejected"),
        )
        if not (prompt and chosen and rejected):
            return None
        if chosen == rejected:
            self._note(row, "rejected", "the same text as chosen", "another one")
        return self._made(row, id_, prompt, chosen, rejected=rejected)

    def _made(self, row: Row, id_: str, turns: Sequence[Message], answer: str, **more: Any) -> Example:
        prompt = Prompt(tuple(turns), self._max_prompt_tok, self._over_length)
        unit = row.data.get("unit")
        return Example(id_, prompt, answer, unit=None if unit is None else str(unit), **more)

    def _prompt(self, row: Row) -> list[Message]:
        if isinstance(row.data["prompt"], list):
            return self._turns(row, "prompt")
        text = self._text(row, "prompt")
        return [Message("user", text)] if text else []

    def _answer(self, row: Row, key: str) -> str:
        """A text, or the last of messages that repeat the prompt, as TRL's data sets have it."""
        if not isinstance(row.data[key], list):
            return self._text(row, key)
        turns = self._turns(row, key)
        if turns and turns[-1].role != "assistant":
            self._note(row, key, f"a last turn of {turns[-1].role}", "the assistant's")
        return turns[-1].content if turns else ""

    def _text(self, row: Row, key: str) -> str:
        value = row.data[key]
        if isinstance(value, str) and value.strip():
            return value
        self._note(row, key, visible(repr(value), limit_chars=60), "text")
        return ""

    def _turns(self, row: Row, key: str) -> list[Message]:
        """The turns in their order; none after a problem was noted."""
        value = row.data[key]
        items = value if isinstance(value, list) else []
        turns = [_turn(item) for item in items]
        good = [turn for turn in turns if turn is not None]
        if not good or len(good) < len(turns):
            self._note(row, key, visible(repr(value), limit_chars=60), "a list of {role, content}, as texts")
            return []
        spoken = [turn.role for turn in good if turn.role != "system"]
        wanted = [("user", "assistant")[at % 2] for at in range(len(spoken))]
        if spoken != wanted or any(turn.role == "system" for turn in good[1:]):
            roles = ", ".join(turn.role for turn in good)
            if not (key in ("chosen", "rejected") and spoken == ["assistant"]):
                self._note(
                    row, key, visible(roles, limit_chars=80), "system first, then user and assistant in turn"
                )
                return []
        return good

    def _note(self, row: Row, key: str, found: str, wanted: str) -> None:
        self._problems.append(Problem(str(self._path), row.line, key, found, wanted))


def _turn(item: Any) -> Message | None:
    role, content = (item.get("role"), item.get("content")) if isinstance(item, dict) else (None, None)
    is_turn = role in ROLES and isinstance(content, str) and bool(content.strip())
    return Message(str(role), str(content)) if is_turn else None
