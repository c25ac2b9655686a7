"""What runs inside the child process: llama.cpp's quantizer, tokenizer and forward pass, and Transformers'."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.errors import ModelError
from harness.models.base import Message, Prompt
from harness.models.prompts import PromptTooLong, common_prefix, fit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


CACHE_TYPES = {"f32": 0, "f16": 1, "q8_0": 8, "q5_1": 7, "q5_0": 6, "q4_1": 3, "q4_0": 2}
"""Type of keys and values → ggml's number for it."""


class Forward(Protocol):
    """Token ids → next-token logits."""

    def logits(self, ids: list[int], first: int) -> NDArray[np.float32]:
        """Logits after each id from position `first` on; shape (len(ids) - first, vocabulary)."""


class Kernels:
    """Answers the requests of `native.Native`; holds one open model and one open vocabulary."""

    def __init__(self, report: Callable[[int, int], None]) -> None:
        self._report = report
        self._forward: Forward | None = None
        self._words: Words | None = None

    def answer(self, op: str, fields: dict[str, Any]) -> tuple[dict[str, Any], bytes | memoryview]:
        """Reply and payload of one request."""
        if op == "quantize":
            from harness.export.quantizer import run_quantizer

            return run_quantizer(self._report, **fields), b""
        if op == "open_gguf":
            self._forward = GgufForward(**fields)
            return {}, b""
        if op == "open_checkpoint":
            self._forward = CheckpointForward(**fields)
            return {}, b""
        if op == "logits":
            return self._logits(**fields)
        if op == "open_words":
            self._words = Words(**fields)
            return {"template": self._words.template, "end_id": self._words.end_id}, b""
        if op == "conversation":
            assert self._words is not None
            return {"ids": self._words.conversation(**fields)}, b""
        if op == "encode":
            assert self._words is not None
            return {"ids": self._words.encode(**fields)}, b""
        if op == "speed":
            return self._speed(**fields), b""
        if op in ("imatrix", "imatrix_torch"):
            return self._imatrix(op, **fields)
        raise ModelError(f"no operation {op!r}")

    def _speed(self, prompt_tok: int, decode_tok: int, tries: int = 3) -> dict[str, float]:
        """Tokens a second of a prompt, and milliseconds a token written after it; the best of the tries."""
        assert isinstance(self._forward, GgufForward)
        prompt_s, decode_s = float("inf"), float("inf")
        for start in range(tries):
            ids = [2 + start + at for at in range(prompt_tok)]  # none begins like the one before
            began = time.perf_counter()
            self._forward.logits(ids, prompt_tok - 1)
            prompt_s = min(prompt_s, time.perf_counter() - began)
            for _ in range(decode_tok):
                ids = [*ids, 1]
                began = time.perf_counter()
                self._forward.logits(ids, len(ids) - 1)
                decode_s = min(decode_s, time.perf_counter() - began)
        return {"prompt_tok_s": prompt_tok / prompt_s, "decode_ms": decode_s * 1000.0}

    def _imatrix(
        self, op: str, path: str, texts: list[list[int]], threads: int
    ) -> tuple[dict[str, Any], bytes]:
        import numpy as np

        from harness.export.imatrix_eval import see_llama, see_torch

        see, method = (see_llama, "llama.cpp") if op == "imatrix" else (see_torch, "torch")
        sums = see(self._report, path, texts, threads)
        fields = {
            "names": list(sums), "lengths": [len(part) for part in sums.values()], "method": method,
            "tokens": sum(map(len, texts)),
        }  # fmt: skip
        return fields, np.concatenate(list(sums.values())).astype("<f8").tobytes()

    def _logits(self, ids: list[int], first: int) -> tuple[dict[str, Any], memoryview]:
        import numpy as np

        assert self._forward is not None
        values = np.ascontiguousarray(self._forward.logits(ids, first), dtype="<f4")
        return {"shape": values.shape, "peak_mb": peak_mb()}, values.data.cast("B")


def peak_mb() -> float:
    """Most memory that this program has held, in MiB.

    From /proc where there is one: `ru_maxrss` survives exec, so in a child it also counts what its parent held
    when it was started.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return next(float(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


class GgufForward:
    """A GGUF through llama.cpp's low-level API. What two sequences in a row begin with is computed once."""

    def __init__(
        self,
        path: str,
        threads: int,
        context_tok: int,
        is_repacked: bool,
        cache: str = "f16",
        adapter: str | None = None,
    ) -> None:
        from llama_cpp import llama_cpp as low

        self._low = low
        low.llama_backend_init()
        model_parameters = low.llama_model_default_params()
        model_parameters.use_extra_bufts = is_repacked
        self._model = low.llama_model_load_from_file(path.encode(), model_parameters)
        if not self._model:
            raise ModelError(f"{path}: llama.cpp can't load it")
        parameters = low.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = context_tok
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.type_k = parameters.type_v = CACHE_TYPES[cache]
        if cache == "f32":  # the fused attention kernel rounds to 16 bits
            parameters.flash_attn_type = low.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._context = low.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise ModelError(f"{path}: llama.cpp can't make a context of {context_tok} tokens in {cache}")
        if adapter:
            self._lay_over(adapter)
        self._context_tok = context_tok
        self._vocabulary = low.llama_vocab_n_tokens(low.llama_model_get_vocab(self._model))
        self._kept: list[int] = []

    def _lay_over(self, adapter: str) -> None:
        import ctypes

        handle = self._low.llama_adapter_lora_init(self._model, adapter.encode())
        if not handle:
            raise ModelError(f"{adapter}: llama.cpp can't lay it over this model")
        handles = (self._low.llama_adapter_lora_p_ctypes * 1)(handle)
        if self._low.llama_set_adapters_lora(self._context, handles, 1, (ctypes.c_float * 1)(1.0)) != 0:
            raise ModelError(f"{adapter}: llama.cpp refuses it on this context")

    def logits(self, ids: list[int], first: int) -> NDArray[np.float32]:
        import numpy as np

        if len(ids) > self._context_tok:
            raise ModelError(f"{len(ids)} tokens are more than the context of {self._context_tok}")
        if not all(0 <= token < self._vocabulary for token in ids):
            raise ModelError(f"an id is outside the vocabulary of {self._vocabulary:,}")
        start = min(len(common_prefix([self._kept, ids])), first)
        self._low.llama_memory_seq_rm(self._low.llama_get_memory(self._context), 0, start, -1)
        self._kept = []
        self._decode(ids, start, first)
        self._kept = ids
        shape = (len(ids) - first, self._vocabulary)
        flat = np.ctypeslib.as_array(self._low.llama_get_logits(self._context), shape=shape)
        return flat.copy()  # the next decode overwrites it

    def _decode(self, ids: list[int], start: int, first: int) -> None:
        low, count = self._low, len(ids) - start
        batch = low.llama_batch_init(count, 0, 1)
        try:
            for row in range(count):
                batch.token[row], batch.pos[row] = ids[start + row], start + row
                batch.n_seq_id[row], batch.seq_id[row][0] = 1, 0
                batch.logits[row] = start + row >= first
            batch.n_tokens = count
            code = low.llama_decode(self._context, batch)
        finally:
            low.llama_batch_free(batch)
        if code != 0:
            raise ModelError(f"llama.cpp's decode failed with code {code}")


class CheckpointForward:
    """A Transformers checkpoint in float32; with `nf4`, its linear layers as QLoRA saw them."""

    def __init__(self, path: str, adapter: str | None, nf4: bool, threads: int) -> None:
        import torch

        from harness.models.quiet import quiet_transformers

        quiet_transformers()
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(threads)
        model: Any = AutoModelForCausalLM.from_pretrained(
            Path(path), dtype=torch.float32, local_files_only=True, trust_remote_code=False
        )
        if nf4:
            _round_as_trained(model)
        if adapter:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, adapter, is_trainable=False)
        self._model = model.eval()

    def logits(self, ids: list[int], first: int) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            hidden_rows = len(ids) - first
            found = self._model(
                input_ids=torch.tensor([ids]), use_cache=False, logits_to_keep=hidden_rows
            ).logits  # (1, rows, vocabulary)
        values: NDArray[np.float32] = found[0].float().numpy()
        return values


def _round_as_trained(model: Any) -> None:
    import torch

    from harness.export.merge import training_dtype
    from harness.models.nf4 import linear_layers, round_to_nf4

    dtype = getattr(torch, training_dtype())
    for layer in linear_layers(model).values():
        layer.weight.data = round_to_nf4(layer.weight.data.to(dtype)).float()


class Words:
    """The tokenizer and the chat template of a GGUF, without its weights."""

    def __init__(self, path: str) -> None:
        from llama_cpp import llama_cpp as low

        self._low = low
        low.llama_backend_init()
        parameters = low.llama_model_default_params()
        parameters.vocab_only = True
        self._model = low.llama_model_load_from_file(path.encode(), parameters)
        if not self._model:
            raise ModelError(f"{path}: llama.cpp can't load its vocabulary")
        self._vocabulary = low.llama_model_get_vocab(self._model)
        found = low.llama_model_chat_template(self._model, None)
        self.template = "" if found is None else found.decode("utf-8", "replace")
        self.end_id = int(low.llama_vocab_eos(self._vocabulary))
        self._tokens = self._special()

    def _special(self) -> dict[str, str]:
        low, vocabulary = self._low, self._vocabulary
        ids = {"bos_token": low.llama_vocab_bos(vocabulary), "eos_token": self.end_id}
        texts = {
            name: low.llama_vocab_get_text(vocabulary, index) for name, index in ids.items() if index >= 0
        }
        return {name: text.decode("utf-8", "replace") for name, text in texts.items()}

    def conversation(
        self,
        messages: list[tuple[str, str]],
        answer: str,
        max_tokens: int | None,
        over_length: str,
        text: str | None = None,
    ) -> list[int] | None:
        """`conversation_ids` by the file's own template and tokenizer."""
        turns = tuple(Message(role, content) for role, content in messages)
        prompt = Prompt(turns, max_tokens, over_length, text)
        return conversation_ids(prompt, answer, self.render, self.encode, self.text_ids, self.end_id)

    def text_ids(self, text: str) -> list[int]:
        """The ids of raw text: the file's BOS before it where the file asks for one; for "" one token all the same."""
        bos = int(self._low.llama_vocab_bos(self._vocabulary))
        begin = [bos] if bos >= 0 and self._low.llama_vocab_get_add_bos(self._vocabulary) else []
        ids = self.encode(text)
        if ids[: len(begin)] != begin:
            ids = begin + ids
        return ids or [bos if bos >= 0 else self.end_id]

    def render(self, messages: Any) -> str:
        from harness.models.template import render

        if not self.template:
            raise ModelError("the file has no chat template, and a conversation needs one")
        return render(self.template, messages, add_generation_prompt=True, tokens=self._tokens)

    def encode(self, text: str) -> list[int]:
        """The text's ids: nothing added, special tokens in the text recognised."""
        data = text.encode("utf-8", "surrogatepass")
        room = len(data) + 16
        buffer = (self._low.llama_token * room)()
        count = self._low.llama_tokenize(self._vocabulary, data, len(data), buffer, room, False, True)
        if count < 0:
            raise ModelError(f"llama.cpp's tokenizer failed on {len(data):,} bytes")
        return list(buffer[:count])


def conversation_ids(
    prompt: Prompt,
    answer: str,
    render: Callable[[Any], str],
    encode: Callable[[str], list[int]],
    encode_text: Callable[[str], list[int]],
    end_id: int,
) -> list[int] | None:
    """The ids of prompt, answer and end of turn; None for a prompt over its budget.

    `encode_text` is for raw text, and puts before it what the tokenizer begins a text with.
    """
    try:
        fitted = fit(prompt, render, encode, encode_text)
    except PromptTooLong:
        return None
    return [*fitted.ids, *encode(answer), end_id]
