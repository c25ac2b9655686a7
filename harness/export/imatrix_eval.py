"""Inside the child: sums of squares of what comes into each matrix, seen by llama.cpp's callback or torch's hooks."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ModelError
from harness.export.imatrix import ABI_HINT, CHUNK_TOK

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BLOCK = "blk."
"""What the matrices of a model's blocks begin with; the embedding and the output need no importances."""
MAX_SEQUENCES = 64
_F32 = 0

Report = Callable[[int, int], None]


class _Tensor(ctypes.Structure):
    """`struct ggml_tensor` as ggml.h of version 0.25 has it. Private: what it says is checked before it is believed."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    )


class _Ggml:
    """The few public functions of ggml that say what a tensor is."""

    def __init__(self) -> None:
        import llama_cpp

        folder = Path(llama_cpp.__file__).parent / "lib"
        found = next((path for path in sorted(folder.iterdir()) if "ggml-base" in path.name), None)
        if found is None:
            raise ModelError(f"{folder}: no ggml-base library", hint=ABI_HINT)
        library = ctypes.CDLL(str(found))
        self.name = library.ggml_get_name
        self.op = library.ggml_op_desc
        self.size = library.ggml_nbytes
        self.copy = library.ggml_backend_tensor_get
        for function in (self.name, self.op):
            function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_char_p
        self.size.argtypes, self.size.restype = [ctypes.c_void_p], ctypes.c_size_t
        self.copy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
        self.copy.restype = None


class Collector:
    """Hears of each product of a matrix with its input, and adds up the squares of the input's columns."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """`shapes` are the file's own: (columns, rows) by name, as llama.cpp orders them."""
        self._ggml = _Ggml()
        self._shapes = shapes
        self.sums: dict[str, NDArray[np.float64]] = {}
        self.rows: dict[str, int] = {}
        self.problem: Exception | None = None

    def __call__(self, tensor: int, is_asking: bool, _user: Any) -> bool:
        """llama.cpp asks whether it should show a tensor, and then shows it; an exception can't cross C.

        The answer to the latter is always to go on: stopped in the middle of a graph, llama.cpp aborts the process.
        """
        if is_asking:
            return self.problem is None and bool(self._ggml.op(tensor) == b"MUL_MAT")
        try:
            self._add(tensor)
        except (ModelError, ValueError, UnicodeDecodeError) as error:
            self.problem = self.problem or error
        return True

    def _add(self, address: int) -> None:
        import numpy as np

        product = _Tensor.from_address(address)
        if product.name != self._ggml.name(address) or not product.src[0] or not product.src[1]:
            raise ModelError("a tensor is not laid out as ggml.h says", hint=ABI_HINT)
        name = self._ggml.name(product.src[0]).decode()
        if not name.startswith(BLOCK):
            return
        columns = self._checked(name, product)
        values = np.empty(self._ggml.size(product.src[1]) // 4, np.float32)
        self._ggml.copy(product.src[1], values.ctypes.data, 0, values.nbytes)
        rows = values.reshape(-1, columns)  # (tokens, columns)
        self.sums[name] = self.sums.get(name, 0.0) + np.einsum("tc,tc->c", rows, rows, dtype=np.float64)
        self.rows[name] = self.rows.get(name, 0) + len(rows)

    def _checked(self, name: str, product: _Tensor) -> int:
        """The input's columns, once weight and input are what the file says they are."""
        weight = _Tensor.from_address(product.src[0])
        given = _Tensor.from_address(product.src[1])
        columns, lengths = int(given.ne[0]), list(given.ne)
        wanted = self._shapes.get(name)
        size = 4 * lengths[0] * lengths[1] * lengths[2] * lengths[3]
        is_dense = given.nb[0] == 4 and given.nb[1] == 4 * columns and self._ggml.size(product.src[1]) == size
        if wanted is None or tuple(weight.ne)[: len(wanted)] != wanted or columns != wanted[0]:
            raise ModelError(
                f"{name}: the file says {wanted}, memory says {tuple(weight.ne)} and an input of {columns}",
                hint=ABI_HINT,
            )
        if given.type != _F32 or not is_dense:
            raise ModelError(f"{name}: its input is no plain array of float32", hint=ABI_HINT)
        return columns


def see_llama(
    report: Report, path: str, texts: list[list[int]], threads: int
) -> dict[str, NDArray[np.float64]]:
    """Sums of squares by matrix, as llama.cpp computes the file.

    Raises:
        ModelError: llama.cpp can't evaluate it, or its tensors are not laid out as is known.
    """
    import gguf

    tensors = gguf.GGUFReader(path).tensors
    shapes = {tensor.name: tuple(int(length) for length in tensor.shape) for tensor in tensors}
    wanted = {name for name, shape in shapes.items() if name.startswith(BLOCK) and len(shape) > 1}
    collector = Collector(shapes)
    _decode_all(report, path, texts, threads, collector)
    total = sum(map(len, texts))
    missing = sorted(name for name in wanted if collector.rows.get(name) != total)
    if missing:
        raise ModelError(
            f"{path}: {len(missing)} of {len(wanted)} matrices did not see all {total:,} tokens, "
            f"first {missing[0]}",
            hint=ABI_HINT,
        )
    return collector.sums


def _decode_all(
    report: Report, path: str, texts: list[list[int]], threads: int, collector: Collector
) -> None:
    from llama_cpp import llama_cpp as low

    low.llama_backend_init()
    settings = low.llama_model_default_params()
    settings.use_extra_bufts = False  # repacked weights lose their names
    model = low.llama_model_load_from_file(path.encode(), settings)
    if not model:
        raise ModelError(f"{path}: llama.cpp can't load it")
    callback = low.ggml_backend_sched_eval_callback(collector)  # kept alive: llama.cpp calls it from C
    rounds = _rounds(texts)
    parameters = low.llama_context_default_params()
    parameters.n_ctx = max(CHUNK_TOK, *(sum(map(len, some)) for some in rounds))
    parameters.n_batch = parameters.n_ubatch = CHUNK_TOK
    parameters.n_seq_max, parameters.kv_unified = MAX_SEQUENCES, True
    parameters.n_threads = parameters.n_threads_batch = threads
    parameters.cb_eval = callback
    context = low.llama_init_from_model(model, parameters)
    if not context:
        low.llama_model_free(model)
        raise ModelError(f"{path}: llama.cpp can't make a context of {parameters.n_ctx} tokens")
    try:
        done, total = 0, sum(map(len, texts))
        for some in rounds:
            low.llama_memory_clear(low.llama_get_memory(context), False)
            for chunk in _chunks(some):
                _decode(low, context, chunk)
                if collector.problem:
                    raise collector.problem
                done += len(chunk)
                report(done, total)
    finally:
        low.llama_free(context)
        low.llama_model_free(model)


def _rounds(texts: Sequence[list[int]]) -> list[list[list[int]]]:
    """Texts that lie in the cache together: a chunk's worth of tokens, or one longer text."""
    rounds: list[list[list[int]]] = []
    room = 0
    for text in texts:
        if len(text) > room or len(rounds[-1]) == MAX_SEQUENCES:
            rounds.append([])
            room = CHUNK_TOK
        rounds[-1].append(text)
        room -= len(text)
    return rounds


def _chunks(texts: Sequence[list[int]]) -> list[list[tuple[int, int, int]]]:
    """(token, position, sequence) of all texts, a chunk at a time."""
    feeds = [(token, at, which) for which, text in enumerate(texts) for at, token in enumerate(text)]
    return [feeds[start : start + CHUNK_TOK] for start in range(0, len(feeds), CHUNK_TOK)]


def _decode(low: Any, context: Any, feeds: Sequence[tuple[int, int, int]]) -> None:
    batch = low.llama_batch_init(len(feeds), 0, 1)
    try:
        for row, (token, position, sequence) in enumerate(feeds):
            batch.token[row], batch.pos[row] = token, position
            batch.n_seq_id[row], batch.seq_id[row][0] = 1, sequence
            batch.logits[row] = True  # or llama.cpp leaves tokens out of the last block
        batch.n_tokens = len(feeds)
        code = low.llama_decode(context, batch)
    finally:
        low.llama_batch_free(batch)
    if code != 0:
        raise ModelError(f"llama.cpp's decode failed with code {code}")


def see_torch(
    report: Report, path: str, texts: list[list[int]], threads: int
) -> dict[str, NDArray[np.float64]]:
    """Sums of squares by matrix, from hooks on the checkpoint's linear layers in float32.

    Raises:
        ModelError: the family is one that GGUF can't be written for.
    """
    import torch

    from harness.export import architectures as arch
    from harness.export.gguf import gguf_names
    from harness.models.quiet import quiet_transformers

    quiet_transformers()
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    checkpoint = Path(path)
    config = arch.read_config(checkpoint)
    family, shape = arch.architecture_of(checkpoint, config), arch.shape_of(checkpoint, config)
    model: Any = AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.float32, local_files_only=True, trust_remote_code=False
    ).eval()
    layers = {
        f"{name}.weight": layer
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and name.startswith("model.layers.")
    }
    names = gguf_names(checkpoint, family, shape, list(layers))
    sums: dict[str, Any] = {}

    def watch(name: str) -> Callable[[Any, tuple[Any, ...]], None]:
        def add(_layer: Any, inputs: tuple[Any, ...]) -> None:
            found = inputs[0].double().square().flatten(0, -2).sum(0)  # (columns,)
            sums[name] = sums.get(name, 0.0) + found

        return add

    for name, layer in layers.items():
        layer.register_forward_pre_hook(watch(names[name]))
    done, total = 0, sum(map(len, texts))
    with torch.inference_mode():
        for text in texts:
            model(input_ids=torch.tensor([text]), use_cache=False, logits_to_keep=1)
            done += len(text)
            report(done, total)
    return {name: found.numpy() for name, found in sums.items()}
