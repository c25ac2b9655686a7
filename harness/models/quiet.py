"""Libraries that must neither talk on the terminal nor reach for the network."""

from __future__ import annotations

import os


def quiet_transformers() -> None:
    """Transformers without bars, advice or telemetry. Call it before the first import."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
