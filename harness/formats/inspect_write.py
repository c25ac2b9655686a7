"""Samples as a log of inspect_ai: an `.eval` file that `inspect view` and its dataframes open.

Written as plain JSON after the schema of log version 2; no member is dated and no id is drawn, so that the
same samples give the same bytes.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from harness.evals.results import Sample
from harness.files import sha256_text
from harness.formats.log import Log, all_whole
from harness.text import visible

MAX_SUMMARY_CHARS = 1000
ID_CHARS = 22
"""As long as the ids that inspect draws."""


def inspect_name(log: Log) -> str:
    """The file's name as inspect builds it: time, task and id."""
    task = re.sub(r"[^A-Za-z0-9.-]+", "-", log.task)[:80]
    return f"{re.sub(r'[:+]', '-', _created(log))}_{task}_{_id(log, 'task')}.eval"


def inspect_eval(log: Log) -> bytes:
    """The log as an `.eval` file."""
    eval_id = _id(log, "eval")
    samples = [_sample(log, sample, eval_id) for sample in log.samples]
    summaries = [_summary(sample) for sample in samples]
    header = _header(log)
    start = {key: header[key] for key in ("version", "eval", "plan")}
    members: list[tuple[str, Any]] = [("_journal/start.json", start)]
    members += [(f"samples/{sample['id']}_epoch_1.json", sample) for sample in samples]
    members += [
        ("_journal/summaries/1.json", summaries),
        ("summaries.json", summaries),
        ("header.json", header),
    ]
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as archive:
        for name, document in members:
            info = ZipInfo(name)  # dated 1980, as ZIP's epoch is
            info.compress_type = ZIP_DEFLATED
            archive.writestr(info, json.dumps(document, allow_nan=False))
    return buffer.getvalue()


def _header(log: Log) -> dict[str, Any]:
    errors = sum(sample.error is not None for sample in log.samples)
    n = len(log.samples)
    return {
        "version": 2, "status": "success", "eval": _spec(log), "plan": {"name": "plan", "steps": [], "config": {}},
        "results": {
            "total_samples": n, "completed_samples": n - errors,
            "scores": [_totals(name, values) for name, values in _score_columns(log).items()],
        },
        "stats": {"started_at": _created(log), "completed_at": _created(log), "model_usage": {}},
    }  # fmt: skip


def _spec(log: Log) -> dict[str, Any]:
    return {
        "eval_id": _id(log, "eval"), "run_id": _id(log, "run"), "created": _created(log), "task": log.task,
        "task_id": _id(log, "task"), "task_version": 0, "task_attribs": {}, "task_args": {},
        "dataset": {
            "name": log.task, "samples": len(log.samples),
            "sample_ids": [_shown_id(sample.id) for sample in log.samples], "shuffled": False,
        },
        "model": log.model or "none", "model_generate_config": {}, "model_args": {},
        "config": {"epochs": 1}, "packages": {}, "scorers": [{"name": name} for name in _score_columns(log)],
        "metadata": all_whole({"tool": log.tool, **log.settings}),
    }  # fmt: skip


def _score_columns(log: Log) -> dict[str, list[float]]:
    """All values of each score, the one that counts first."""
    columns = {log.metric: [sample.score for sample in log.samples]}
    for sample in log.samples:
        for name, value in sample.scores.items():
            if name != log.metric:
                columns.setdefault(name, []).append(value)
    return columns


def _totals(name: str, values: Sequence[float]) -> dict[str, Any]:
    """The score's `accuracy` and `stderr` as inspect's metrics of that name compute them; errors count as 0."""
    n = len(values)
    mean = math.fsum(values) / n if n else 0.0
    spread = math.fsum((value - mean) ** 2 for value in values)
    metrics = {"accuracy": mean} if n else {}
    if n > 1:
        metrics["stderr"] = math.sqrt(spread / (n - 1) / n)
    return {
        "name": name, "scorer": name, "scored_samples": n, "unscored_samples": 0, "params": {},
        "metrics": {key: {"name": key, "value": value, "params": {}} for key, value in metrics.items()},
    }  # fmt: skip


def _sample(log: Log, sample: Sample, eval_id: str) -> dict[str, Any]:
    asked, said = log.inputs.get(sample.id, ""), sample.output if sample.output is not None else sample.answer
    usage = {
        "input_tokens": sample.prompt_tok, "output_tokens": sample.output_tok,
        "total_tokens": sample.prompt_tok + sample.output_tok,
    }  # fmt: skip
    reply = {"role": "assistant", "content": said or "", "source": "generate", "model": log.model}
    data = {
        "id": _shown_id(sample.id), "epoch": 1, "input": asked, "target": _target(sample.gold),
        "messages": [{"role": "user", "content": asked, "source": "input"}, reply] if asked else [reply],
        "output": {
            "model": log.model, "completion": said or "", **({"usage": usage} if usage["total_tokens"] else {}),
            "choices": [{"message": reply, "stop_reason": "unknown" if sample.is_truncated else "stop"}],
            **({"time": sample.latency_ms / 1000.0} if sample.latency_ms is not None else {}),
        },
        "scores": {name: _score(value, sample) for name, value in _scores(log, sample).items()},
        "metadata": _metadata(sample), "store": {}, "events": [], "attachments": {},
        "model_usage": {log.model: usage} if usage["total_tokens"] else {},
        "uuid": sha256_text(f"{eval_id} {sample.id}")[:ID_CHARS],
    }  # fmt: skip
    if sample.error is not None:
        data["error"] = {"message": sample.error, "traceback": "", "traceback_ansi": ""}
    found: dict[str, Any] = all_whole(data)
    return found


def _scores(log: Log, sample: Sample) -> dict[str, float]:
    return {log.metric: sample.score, **{k: v for k, v in sample.scores.items() if k != log.metric}}


def _score(value: float, sample: Sample) -> dict[str, Any]:
    score: dict[str, Any] = {"value": value, "history": []}
    return score if sample.answer is None else {**score, "answer": sample.answer}


def _shown_id(id_: str) -> str:
    """The id, which names a member of the ZIP file, without what ends or breaks a name."""
    return visible(id_, keep_newlines=False)


def _target(gold: Sequence[str]) -> str | list[str]:
    return gold[0] if len(gold) == 1 else list(gold)


def _metadata(sample: Sample) -> dict[str, Any]:
    """What inspect has no field for; what is unknown is left out."""
    known = {
        "unit": sample.unit, "slices": sample.slices, "confidence": sample.confidence,
        "label_probs": sample.label_probs, "confidences": sample.confidences, "parsed": sample.parsed,
        "prompt_digest": sample.prompt_digest, "is_truncated": sample.is_truncated or None,
        "error_class": sample.error_class,
    }  # fmt: skip
    return {key: value for key, value in known.items() if value not in (None, "", {})}


def _summary(sample: Mapping[str, Any]) -> dict[str, Any]:
    """The sample as lists show it: long texts cut, as inspect cuts them when it reads."""
    kept = ("id", "epoch", "target", "metadata", "model_usage", "uuid")
    short = {key: sample[key] for key in kept}
    scores = {name: dict(_short_texts(score)) for name, score in sample["scores"].items()}
    error = {"error": sample["error"]["message"][:MAX_SUMMARY_CHARS]} if "error" in sample else {}
    asked = sample["input"][:MAX_SUMMARY_CHARS]
    return {
        **short, "input": asked, "scores": scores, "completed": True, "message_count": len(sample["messages"]),
        **error,
    }  # fmt: skip


def _short_texts(score: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in score.items():
        yield key, value[:MAX_SUMMARY_CHARS] if isinstance(value, str) else value


def _created(log: Log) -> str:
    return log.created or "1970-01-01T00:00:00+00:00"


def _id(log: Log, what: str) -> str:
    """An id that is the same for the same log; another one for each of its roles."""
    parts = [what, log.tool, log.task, log.model, log.created, *(sample.id for sample in log.samples)]
    return sha256_text("\0".join(parts))[:ID_CHARS]
