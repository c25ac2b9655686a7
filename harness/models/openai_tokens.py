"""Token ids from a server: its own tokenizer and chat template, through the endpoints that it has for them."""

from __future__ import annotations

from collections.abc import Sequence

from harness.models.base import Message
from harness.models.openai_reply import read_ids
from harness.models.openai_wire import RequestFailedError, Wire

MEMO_TEXTS = 4096
_QUESTION, _SENTINEL = "question", "ANSWER"


class RemoteTokens:
    """Text and conversations → ids, by `/tokenize` as vLLM has it, or as llama-server has it."""

    def __init__(self, wire: Wire, model: str) -> None:
        self._wire = wire
        self._model = model
        self._is_vllm = False
        self._memo: dict[tuple[str, bool], list[int]] = {}
        self._end_id: int | None = None

    async def find(self) -> bool:
        """Whether the server has such an endpoint; asked before anything else."""
        body = {"model": self._model, "prompt": "a", "add_special_tokens": False}
        self._is_vllm = bool(read_ids(await self._wire.find("root:/tokenize", body)))
        other = {"content": "a", "add_special": False, "parse_special": True}
        return self._is_vllm or bool(read_ids(await self._wire.find("root:/tokenize", other)))

    async def text_ids(self, text: str, *, begins: bool) -> list[int]:
        """The text's ids; `begins` with what the tokenizer puts before a text."""
        key = (text, begins)
        if key not in self._memo:
            if len(self._memo) >= MEMO_TEXTS:
                self._memo.clear()
            self._memo[key] = await self._ids(
                {"model": self._model, "prompt": text, "add_special_tokens": begins}
                if self._is_vllm
                else {"content": text, "add_special": begins, "parse_special": True}
            )
        return self._memo[key]

    async def chat_ids(self, messages: Sequence[Message]) -> list[int]:
        """The conversation's ids, up to where the answer begins."""
        turns = [{"role": message.role, "content": message.content} for message in messages]
        if self._is_vllm:
            body = {"model": self._model, "messages": turns, "add_generation_prompt": True}
            return await self._ids(body)
        text = (await self._wire.post("root:/apply-template", {"messages": turns})).get("prompt")
        if not isinstance(text, str):
            raise RequestFailedError("/apply-template gives no text")
        return await self._ids({"content": text, "add_special": True, "parse_special": True})

    async def end_id(self) -> int:
        """The id that ends an answer: what stands after one in a conversation that goes on.

        Raises:
            RequestFailedError: the template shows none.
        """
        if self._end_id is None:
            turns = [
                Message("user", _QUESTION), Message("assistant", _SENTINEL), Message("user", _QUESTION)
            ]  # fmt: skip
            ids, answer = await self.chat_ids(turns), await self.text_ids(_SENTINEL, begins=False)
            size = len(answer)
            ends = [at + size for at in range(len(ids) - size) if ids[at : at + size] == answer]
            if len(ends) != 1:
                raise RequestFailedError(
                    "the server's chat template does not show which token ends an answer"
                )
            self._end_id = ids[ends[0]]
        return self._end_id

    async def _ids(self, body: dict[str, object]) -> list[int]:
        ids = read_ids(await self._wire.post("root:/tokenize", body))
        if ids is None:
            raise RequestFailedError("/tokenize gives no list of token ids")
        return ids
