"""Samples as lm-evaluation-harness writes them: `results_*.json` and a `samples_*.jsonl` a task.

Schema of lm_eval 0.4.13 (`result_schema.py`). Every answer is written as the text it is, in the shape of a
`generate_until` task; hashes are made as lm-eval makes them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.evals.results import Sample
from harness.files import sha256_text
from harness.formats.log import Log, all_whole

FILTER = "none"


def lm_eval_files(logs: Sequence[Log]) -> dict[str, str]:
    """The texts of one model's results file and of a samples file a log, by path as lm-eval lays them out."""
    folder, date = _file_part(logs[0].model), _date(logs[0])
    rows = {task_name(log.task): _rows(log) for log in logs}
    files = {f"{folder}/results_{date}.json": _dump(_results(logs, rows), indent=2) + "\n"}
    for task, lines in rows.items():
        files[f"{folder}/samples_{task}_{date}.jsonl"] = "".join(_dump(line) + "\n" for line in lines)
    return files


def _dump(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)


def _file_part(model: str) -> str:
    """The model's name, fit for the name of a folder; as lm-eval makes it."""
    return re.sub(r"[\"<>:/|\\?*\[\]]+", "__", all_whole(model)) or "none"


def task_name(text: str) -> str:
    """The task's name, fit for the names of files."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text)[:120]


def _rows(log: Log) -> list[dict[str, Any]]:
    return [_row(log, number, sample) for number, sample in enumerate(log.samples)]


def _row(log: Log, number: int, sample: Sample) -> dict[str, Any]:
    asked, said = log.inputs.get(sample.id, ""), sample.output if sample.output is not None else sample.answer
    doc = all_whole(
        {
            "id": sample.id,
            "input": asked,
            "target": list(sample.gold),
            "unit": sample.unit,
            "slices": sample.slices,
        }
    )
    target = all_whole(sample.gold[0] if len(sample.gold) == 1 else str(list(sample.gold)))
    prompt = doc["input"]
    scores = _scores(log, sample)
    row = {
        "doc_id": number, "doc": doc, "target": target, "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": {}}},
        "resps": [[all_whole(said or "")]], "filtered_resps": [all_whole(sample.answer or "")], "filter": FILTER,
        "metrics": list(scores), "doc_hash": sha256_text(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": sha256_text(prompt), "target_hash": sha256_text(target),
        "error": all_whole(sample.error), "confidence": sample.confidence,
    }  # fmt: skip
    return {**row, **scores}


def _scores(log: Log, sample: Sample) -> dict[str, float]:
    first = _plain(log.metric)
    return {first: sample.score, **{k: v for k, v in sample.scores.items() if _plain(k) != first}}


def _plain(metric: str) -> str:
    """The metric without the filter that lm-eval writes behind a comma."""
    return metric.partition(",")[0]


def _results(logs: Sequence[Log], rows: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, Any]:
    model, tool = all_whole(logs[0].model), logs[0].tool
    parts = {task_name(log.task): _task_part(log, rows[task_name(log.task)]) for log in logs}
    by_task = {key: {task: part[key] for task, part in parts.items()} for key in next(iter(parts.values()))}
    return {
        **by_task, "config": {"model": tool, "model_args": model, "batch_size": None, "limit": None},
        "git_hash": None, "lm_eval_version": None, "transformers_version": None, "model_source": tool,
        "model_name": model, "model_name_sanitized": _file_part(model), "system_instruction": None,
        "chat_template": None, "total_evaluation_time_seconds": None,
    }  # fmt: skip


def _task_part(log: Log, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What each section of the results says of the task."""
    task = task_name(log.task)
    names = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    hashes = "".join(row["doc_hash"] + row["prompt_hash"] + row["target_hash"] for row in rows)
    return {
        "results": _totals(task, names, rows), "group_subtasks": [], "versions": 0, "n-shot": 0,
        "configs": {
            "task": task, "output_type": "generate_until", "num_fewshot": 0,
            "metric_list": [
                {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in names
            ],
            "metadata": all_whole({"version": 0, "tool": log.tool, **log.settings}),
        },
        "higher_is_better": dict.fromkeys(names, True),
        "n-samples": {"original": len(rows), "effective": len(rows)}, "task_hashes": sha256_text(hashes),
    }  # fmt: skip


def _totals(task: str, names: Sequence[str], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    totals: dict[str, Any] = {"name": task, "alias": task, "sample_len": len(rows)}
    for name in names:
        values = [row[name] for row in rows if name in row["metrics"]]
        totals |= {f"{name},{FILTER}": _mean(values), f"{name}_stderr,{FILTER}": _stderr(values)}
    return totals


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _stderr(values: Sequence[float]) -> float | str:
    """The standard error of the mean; `N/A`, as lm-eval spells it, where one value has none."""
    n, mean = len(values), _mean(values)
    if n < 2:
        return "N/A"
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)


def _date(log: Log) -> str:
    """The time as lm-eval puts it into names: no colons, no time zone."""
    moment = log.created.partition("+")[0].removesuffix("Z")
    return moment.replace(":", "-") or "1970-01-01T00-00-00"
