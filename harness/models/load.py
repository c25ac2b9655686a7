"""A reference → a model, or the folder of its checkpoint. Nothing is ever downloaded."""

from __future__ import annotations

from pathlib import Path

from harness.errors import ModelError
from harness.models.base import Model
from harness.models.embedded import Progress, embedded_checkpoint, gguf_checkpoint
from harness.models.openai_reference import PREFIX as OPENAI_PREFIX

EMBEDDED_PREFIX = "embedded:"
SCRIPTED_PREFIX = "scripted:"


def open_model(
    reference: str,
    *,
    adapter: Path | None = None,
    nf4: bool = False,
    threads: int | None = None,
    answers: Path | None = None,
    on_progress: Progress | None = None,
) -> Model:
    """The model that the reference names, loaded and ready.

    `embedded:NAME`, `scripted:FILE.jsonl`, a `*.gguf` file, a checkpoint folder, a hub id that is in
    the local cache, or `openai:URL#NAME`, a model behind an endpoint. `adapter` is a LoRA folder and `nf4`
    computes with NF4 weights; both are for checkpoints only. `threads` None takes all cores that this process
    may use. `answers` is a folder of answers that were computed before: what the same bytes were asked before
    is taken from there, where the model is known by its content (`is_worth_keeping`).

    Raises:
        ModelError: there is no such model, or it can't be loaded.
        IntegrityError: its bytes are not those that were promised.
    """
    model = _opened(reference, adapter, nf4, threads, on_progress)
    if answers is None:
        return model
    from harness.models.cache import CachedModel, is_worth_keeping

    return CachedModel(model, answers, note=on_progress) if is_worth_keeping(model.identity) else model


def _opened(
    reference: str, adapter: Path | None, nf4: bool, threads: int | None, on_progress: Progress | None
) -> Model:
    is_remote = reference.startswith(OPENAI_PREFIX)
    is_gguf = reference.lower().endswith(".gguf") and not is_remote
    is_other = is_gguf or is_remote or reference.startswith(SCRIPTED_PREFIX)
    if is_other and (adapter is not None or nf4):
        raise ModelError(f"{reference}: an adapter or NF4 needs a Transformers checkpoint")
    if is_remote:
        from harness.models.openai import OpenAIModel

        return OpenAIModel.from_reference(reference)
    if reference.startswith(SCRIPTED_PREFIX):
        from harness.models.scripted import ScriptedModel

        return ScriptedModel.from_file(Path(reference.removeprefix(SCRIPTED_PREFIX)))
    if is_gguf:
        from harness.models.gguf import GgufModel

        return GgufModel(Path(reference), threads=threads)
    from harness.models.transformers import TransformersModel

    folder = resolve_base(reference, on_progress=on_progress)
    return TransformersModel(folder, adapter=adapter, nf4=nf4, threads=threads, on_note=on_progress)


def resolve_base(reference: str, *, on_progress: Progress | None = None) -> Path:
    """The folder with the reference's Transformers checkpoint: config.json, safetensors, tokenizer.

    An embedded model and a GGUF file are converted once, into the cache.

    Raises:
        ModelError: there is no such model; the hint says what to do about it.
        IntegrityError: its bytes are not those that were promised.
    """
    if reference.startswith(OPENAI_PREFIX):
        raise ModelError(
            f"{reference}: an endpoint is no checkpoint: nothing can be trained, converted or released from it",
            hint="harness eval SUITE --model scores it; give the checkpoint that it serves as base",
        )
    if reference.startswith(EMBEDDED_PREFIX):
        return embedded_checkpoint(reference.removeprefix(EMBEDDED_PREFIX), on_progress=on_progress)
    path = Path(reference).expanduser()
    if reference.lower().endswith(".gguf"):
        if not path.is_file():
            raise ModelError(f"{reference}: no such file")
        return gguf_checkpoint(path, on_progress=on_progress)
    if path.is_dir():
        return _checked(path)
    return _checked(_from_hub_cache(reference))


def _checked(folder: Path) -> Path:
    from harness.models.identity import weight_files

    weight_files(folder)
    return folder


def _from_hub_cache(reference: str) -> Path:
    import re

    hint = (
        f"on a machine with a network: hf download {reference} --local-dir DIR; then pass DIR, "
        "or use embedded:smollm2-135m, which needs no network"
    )
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", reference):
        raise ModelError(
            f"{reference}: no such folder, and not a reference to a model",
            hint="embedded:smollm2-135m, scripted:FILE.jsonl, FILE.gguf, a checkpoint folder, owner/name,"
            " or openai:URL#NAME",
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(reference, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError) as error:
        raise ModelError(f"{reference}: not in the local hub cache", hint=hint) from error
