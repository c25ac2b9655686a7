"""Logs of other tools, by what the files hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.errors import DataError
from harness.formats.inspect_read import is_inspect_json, read_inspect
from harness.formats.lm_eval_read import is_lm_eval_results, read_lm_eval, read_lm_eval_samples
from harness.formats.log import Log, Wanted, parse_object, read_bytes

KINDS = "an inspect log (.eval, .json), or lm-eval's results_*.json or samples_*.jsonl"


def read_logs(paths: Sequence[Path], wanted: Wanted) -> list[Log]:
    """The logs in the files, in their order.

    Raises:
        DataError: a file is none of these, can't be read, or two hold the same task.
    """
    logs = [log for path in paths for log in _read(path, wanted)]
    tasks = [log.task for log in logs]
    if twice := next((task for task in tasks if tasks.count(task) > 1), None):
        raise DataError(
            f"task {twice} is there twice: {', '.join(map(str, paths))}", hint="import each alone"
        )
    return logs


def _read(path: Path, wanted: Wanted) -> list[Log]:
    suffix = path.suffix.lower()
    if suffix == ".eval":
        return [read_inspect(path, wanted)]
    if suffix == ".jsonl":
        return [read_lm_eval_samples(path, wanted)]
    if suffix != ".json":
        raise DataError(f"{path}: not a log that can be read", hint=f"wanted {KINDS}")
    data = parse_object(read_bytes(path), str(path))
    if is_inspect_json(data):
        return [read_inspect(path, wanted)]
    if is_lm_eval_results(data):
        return read_lm_eval(path, wanted)
    raise DataError(f"{path}: neither inspect's nor lm-eval's JSON", hint=f"wanted {KINDS}")
