"""What a model is, by content: the same name with other bytes is another model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from harness.errors import ModelError
from harness.files import digest_json, sha256_file, sha256_text
from harness.models.base import Identity

_seen: dict[tuple[str, int, int, int], str] = {}
"""Digests of files that this process has read: (path, bytes, mtime, inode) → sha256."""

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)


def digest_of(path: Path) -> str:
    """sha256 hex of the file. Read once a process: again only when its size, mtime or inode changes.

    Raises:
        ModelError: it can't be read.
    """
    try:
        stat = path.stat()
        key = (os.fspath(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino)
        if key not in _seen:
            _seen[key] = sha256_file(path)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    return _seen[key]


def checkpoint_identity(folder: Path, adapter: Path | None = None, quantization: str = "") -> Identity:
    """The identity of a Transformers checkpoint, with its adapter where there is one.

    `quantization` is a short description such as `nf4`: the same file computes differently under it.

    Raises:
        ModelError: no weights, or a file that can't be read.
    """
    weights = weight_files(folder)
    return identity_of(
        kind="transformers",
        weights=digest_json({path.name: digest_of(path) for path in (*weights, folder / "config.json")}),
        adapter=adapter_digest(adapter) if adapter else "",
        tokenizer=_tokenizer_digest(folder),
        template=_template_digest(folder),
        quantization=quantization,
    )


def gguf_identity(path: Path) -> Identity:
    """The identity of a GGUF file: tokenizer and template are inside it, so its bytes say all.

    Raises:
        ModelError: it can't be read.
    """
    digest = digest_of(path)
    return identity_of(kind="gguf", weights=digest, tokenizer="in the file", template="in the file")


def identity_of(
    *,
    kind: str,
    weights: str,
    adapter: str = "",
    tokenizer: str = "",
    template: str = "",
    quantization: str = "",
) -> Identity:
    """The identity with its digest over all parts."""
    parts = {
        "kind": kind,
        "weights": weights,
        "adapter": adapter,
        "tokenizer": tokenizer,
        "template": template,
        "quantization": quantization,
    }
    return Identity(digest=digest_json(parts), **parts)


def is_by_content(identity: Identity) -> bool:
    """Whether this process has read the bytes that answer. What a server says of itself is not that: no gate
    that releases a file may stand on it."""
    return identity.kind != "openai"


def is_fixed(identity: Identity) -> bool:
    """Whether what has this identity today has it tomorrow: by content, by a digest that the server states,
    or by a pin that a person vouches for."""
    return is_by_content(identity) or identity.weights.startswith(("sha256:", "pin:"))


def adapter_digest(folder: Path) -> str:
    """sha256 hex over a LoRA adapter's weights and settings.

    Raises:
        ModelError: one of the two is missing.
    """
    names = ("adapter_config.json", "adapter_model.safetensors")
    for name in names:
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: no {name}", hint="pass the folder that training wrote")
    return digest_json({name: digest_of(folder / name) for name in names})


def weight_files(folder: Path) -> list[Path]:
    """The checkpoint's safetensors, sorted by name.

    Raises:
        ModelError: config.json or the weights are missing, or the weights are pickles.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no config.json", hint="pass a folder with a Transformers checkpoint")
    found = sorted(path for path in folder.glob("*.safetensors") if path.name != "adapter_model.safetensors")
    if not found:
        pickles = sorted(path.name for path in folder.glob("*.bin"))
        what = f"only {pickles[0]}, and unpickling runs code" if pickles else "no *.safetensors"
        raise ModelError(f"{folder}: {what}", hint="save the weights as safetensors")
    return found


def _tokenizer_digest(folder: Path) -> str:
    present = [name for name in TOKENIZER_FILES if (folder / name).is_file()]
    return digest_json({name: digest_of(folder / name) for name in present}) if present else ""


def _template_digest(folder: Path) -> str:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return digest_of(path)
    config = folder / "tokenizer_config.json"
    if not config.is_file():
        return ""
    from harness.files import read_json

    template: Any = read_json(config).get("chat_template")
    if template is None:
        return ""
    return sha256_text(template) if isinstance(template, str) else digest_json(template)
