"""What a server is and what it says of the model behind it: as much of an identity as can be had from afar."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from harness.errors import ModelError
from harness.files import digest_json, sha256_text
from harness.models.base import Identity
from harness.models.identity import identity_of
from harness.models.openai_reference import Endpoint
from harness.models.openai_wire import MissingError, RequestFailedError, Wire

PASSING = ("created", "permission", "status", "last_used", "modified_at", "expires_at")
"""What servers say of a model that is otherwise each time."""
LISTED = 5


class Server(NamedTuple):
    """What answers."""

    model: str
    engine: str
    """`llama-server`, `vllm`, `ollama`, or empty where it does not tell."""
    version: str
    weights: str
    """`sha256:…` where the server states a digest, else `reported:…`: the digest of all that it reports."""
    template: str
    quantization: str


async def examine(wire: Wire) -> Server:
    """The server, and the model that the endpoint names.

    Raises:
        ModelError: it does not answer, or has no such model.
    """
    entry = await _listed_model(wire)
    name = str(entry["id"])
    props = await wire.find("root:/props")
    if props and ("build_info" in props or "model_path" in props):
        return _llama_server(wire.endpoint, name, entry, props)
    if (tags := await wire.find("root:/api/tags")) and isinstance(tags.get("models"), list):
        version = await wire.find("root:/api/version") or {}
        return _ollama(wire.endpoint, name, entry, tags["models"], str(version.get("version", "")))
    version = await wire.find("root:/version") or {}
    engine = "vllm" if entry.get("owned_by") == "vllm" else ""
    return _other(wire.endpoint, name, entry, engine, str(version.get("version", "")))


def remote_identity(server: Server, endpoint: Endpoint) -> Identity:
    """The identity by what the server says of itself, which is not by content: `is_by_content` is False.

    A pin does not hide that the server reports something else now.
    """
    stands = server.weights.startswith("sha256:") or endpoint.pin is None
    return identity_of(
        kind="openai",
        weights=server.weights if stands else f"pin:{endpoint.pin} {server.weights}",
        template=server.template,
        quantization=" ".join(filter(None, (server.quantization, server.engine, server.version))),
    )


async def _listed_model(wire: Wire) -> dict[str, Any]:
    wanted, url = wire.endpoint.model, wire.endpoint.url
    try:
        entries = (await wire.get("/models")).get("data")
    except MissingError:
        if wanted is None:
            raise
        return {"id": wanted}  # a gateway without a list says at the first request whether it knows the name
    except RequestFailedError as error:
        raise ModelError(f"{url}/models: {error}") from None
    listed = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    by_name = {str(entry.get("id")): entry for entry in listed}
    names = ", ".join([repr(name) for name in by_name][:LISTED]) + (", …" if len(by_name) > LISTED else "")
    if wanted is None and len(by_name) == 1:
        return listed[0]
    if wanted not in by_name:
        said = f"no model {wanted!r}" if wanted else f"{len(by_name)} models, and no name after #"
        raise ModelError(f"{url}: {said}", hint=f"it serves {names or 'none'}; openai:{url}#NAME")
    return by_name[wanted]


def _llama_server(endpoint: Endpoint, name: str, entry: dict[str, Any], props: dict[str, Any]) -> Server:
    settings = props.get("default_generation_settings")
    context = settings.get("n_ctx") if isinstance(settings, dict) else None
    reported = [_lasting(entry), props.get("model_path"), props.get("build_info"), context]
    template = props.get("chat_template")
    return Server(
        model=name, engine="llama-server", version=str(props.get("build_info", "")),
        weights=_reported(endpoint, name, reported),
        template=sha256_text(template) if isinstance(template, str) else "", quantization="",
    )  # fmt: skip


def _ollama(endpoint: Endpoint, name: str, entry: dict[str, Any], tags: list[Any], version: str) -> Server:
    """Ollama names a model by the digest of its manifest, which holds those of weights, template and settings."""
    found: dict[str, Any] = next(
        (tag for tag in tags if isinstance(tag, dict) and name in (tag.get("model"), tag.get("name"))), {}
    )
    digest = str(found.get("digest", ""))
    details = found.get("details")
    is_digest = re.fullmatch(r"[0-9a-f]{64}", digest)
    return Server(
        model=name, engine="ollama", version=version,
        weights=f"sha256:{digest}" if is_digest else _reported(endpoint, name, [_lasting(entry)]),
        template="in the manifest" if is_digest else "",
        quantization=str(details.get("quantization_level", "")) if isinstance(details, dict) else "",
    )  # fmt: skip


def _other(endpoint: Endpoint, name: str, entry: dict[str, Any], engine: str, version: str) -> Server:
    return Server(name, engine, version, _reported(endpoint, name, [_lasting(entry)]), "", "")


def _reported(endpoint: Endpoint, name: str, said: list[Any]) -> str:
    return f"reported:{name} at {endpoint.url}, {digest_json(said)}"


def _lasting(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in PASSING}
