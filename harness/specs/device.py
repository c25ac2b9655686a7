"""The device that a release is for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.specs.base import Document


class Device(Document):
    """What the edge machine has to offer."""

    name: str
    threads: Annotated[int, Field(ge=1, le=1024)] = 2
    memory_mb: Annotated[int, Field(ge=64)] = 4096
    """Memory for weights, KV cache and buffers together."""
    latency: Literal["library", "engine"] = "library"
    """How latency rules time a GGUF: `library` calls llama.cpp in the run's own process, `engine` asks the engine that
    serves, with shared beginnings at hand as on the device."""
