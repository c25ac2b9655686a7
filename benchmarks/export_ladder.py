"""Every useful quant of a finished run: size, speed, KL with importances and without, and what the gate says.

    python benchmarks/export_ladder.py --run .harness/runs/demo-1a2b3c4d --run .harness/runs/legal-cuad-5e6f7a8b
    python benchmarks/export_ladder.py --run RUN --quants q8_0 q4_0 iq2_xs --sensitivity 21

Takes the 16-bit file of each run, which must have passed, and does what `harness release` does from there with
`export: {imatrix: auto}`: importances from the training split, each quant with them and without, KL from the 16-bit
file on the development split, then the gate from the largest file to the smallest until one does not pass. Works on a
copy; the run stays as it is. Without --run it takes the newest finished demo and legal-cuad runs in $HARNESS_HOME.

Writes benchmarks/results/export_ladder.json and .md, in which other recipes' runs stay. The exit code is 1 where a run
takes over 12 minutes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.export.quantize import FILE_TYPES
from harness.files import read_json
from harness.jobs.candidate import Candidate
from harness.jobs.exporting import Exporter
from harness.jobs.journal import Journal
from harness.jobs.orders import load_order
from harness.jobs.packing import pick_quant
from harness.jobs.progress import Progress
from harness.jobs.stages import Stages
from harness.jobs.store import home_folder, list_runs
from harness.specs.load import find_document
from harness.specs.recipe import Export

if __package__:
    from benchmarks.multiple_choice import machine
else:
    from multiple_choice import machine

RESULTS = Path(__file__).parent / "results"
LADDER = ("q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q4_0", "iq4_xs", "iq2_xs")
LIMIT_S = 12 * 60
MIB = 2**20


def main() -> int:
    """Measures each run, prints and writes the tables; 1 where one takes too long."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, action="append", help="folder of a finished run; may be repeated")
    parser.add_argument("--quants", nargs="+", choices=list(FILE_TYPES), default=list(LADDER))
    parser.add_argument("--sensitivity", type=int, default=0, help="groups of tensors to round alone")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    export = Export(quants=tuple(options.quants), imatrix="auto", sensitivity=options.sensitivity)
    runs = options.run or newest(("demo", "legal-cuad"))
    if not runs:
        print(
            "not run: no finished demo or legal-cuad run; make one with harness release, or name it with --run"
        )
        return 0
    measured = [climbed(run, export) for run in runs]
    options.out.mkdir(exist_ok=True, parents=True)
    path = options.out / "export_ladder.json"
    report = {"runs": [*others(path, measured), *measured]}
    path.write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "export_ladder.md").write_text(page(report))
    print(json.dumps(report) if options.json else page(report))
    return 0 if all(run["seconds"] <= LIMIT_S for run in measured) else 1


def others(path: Path, measured: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What was measured before of other recipes' runs."""
    here = {run["run"].rpartition("-")[0] for run in measured}
    known = json.loads(path.read_text())["runs"] if path.exists() else []
    return [run for run in known if run["run"].rpartition("-")[0] not in here]


def newest(recipes: Sequence[str]) -> list[Path]:
    """The newest run of each recipe that has a 16-bit file that passed."""
    found: dict[str, Path] = {}
    for info in list_runs(home_folder()):
        name = info.run.rpartition("-")[0]
        if name in recipes and name not in found and has_passed(info.folder):
            found[name] = info.folder
    return list(found.values())


def has_passed(run: Path) -> bool:
    verdict = run / "stages" / "f16" / "verdict.json"
    return verdict.exists() and read_json(verdict)["verdict"] == "PASS"


def climbed(run: Path, export: Export) -> dict[str, Any]:
    """The ladder of one run: a row a quant, and how long each step took."""
    if not has_passed(run):
        raise SystemExit(f"{run}: its 16-bit file has not passed, so nothing may be quantized from it")
    with tempfile.TemporaryDirectory(dir=run.parent, prefix=".ladder-") as scratch:
        folder = copied(run, Path(scratch) / run.name, export.quants)
        options = read_json(folder / "manifest.json")["options"]
        root = Path(options["data_root"]) if options["data_root"] else None
        loaded = load_order(find_document(options["recipe"]), root)
        loaded = loaded._replace(recipe=loaded.recipe.model_copy(update={"export": export}))
        steps = [("ladder", "ladder"), *((quant, quant) for quant in export.quants)]
        progress = Progress(Journal(folder / "events.jsonl"), folder, steps)
        stages = Stages(folder, loaded, progress)
        began = time.monotonic()
        Exporter(Candidate(folder, loaded, options, progress, stages)).judge_files()
        seconds = time.monotonic() - began
        verdicts = {quant: stages.verdict(quant) for quant in export.quants}
        choice = pick_quant(folder, loaded, verdicts)
        ladder = read_json(folder / "artifacts" / "ladder.json")
        return {
            "run": run.name, "date": datetime.now(UTC).date().isoformat(), "machine": machine(),
            "seconds": round(seconds, 1), "picked": choice.picked,
            "imatrix": ladder.get("imatrix"), "sensitivity": ladder.get("sensitivity"),
            "f16_bytes": (folder / "artifacts" / "model-f16.gguf").stat().st_size,
            "rows": [row(one, ladder["rows"][one["quant"]]) for one in choice.to_json()["rows"]],
            "notes": notes(folder),
        }  # fmt: skip


def copied(run: Path, folder: Path, quants: Sequence[str]) -> Path:
    """The run without its quantized files; large files are links."""
    fresh = {"train", "events.jsonl", "lease.lock", "pick.json", "cancel", "control"}
    ours = {f"model-{quant}.gguf" for quant in FILE_TYPES} | {"ladder.json", "imatrix.gguf"}

    def left_out(where: str, names: list[str]) -> set[str]:
        here = Path(where)
        if here == run / "stages":
            return set(names) & set(FILE_TYPES) | (set(names) & set(quants))
        return {name for name in names if name in ours | fresh}

    shutil.copytree(run, folder, ignore=left_out, copy_function=link_or_copy)
    return folder


def link_or_copy(source: str, target: str) -> None:
    """A link for what is only read, a copy for what may be written to."""
    if source.endswith((".gguf", ".safetensors")):
        Path(target).symlink_to(Path(source).resolve())
    else:
        shutil.copy2(source, target)


def row(one: Mapping[str, Any], built: Mapping[str, Any]) -> dict[str, Any]:
    """One quant with what each way of rounding it gave."""
    kl = {tried["variant"]: tried["mean_kl"] for tried in built["tried"]}
    plain, weighed = kl.get("plain"), kl.get("imatrix")
    return {
        **one, "kl_by_variant": kl, "seconds": sum(tried["seconds"] for tried in built["tried"]),
        "imatrix_hurt": None if plain is None or weighed is None else weighed > plain,
    }  # fmt: skip


def notes(folder: Path) -> list[str]:
    lines = (json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines())
    return [line["text"] for line in lines if line["event"] == "note"]


def page(report: Mapping[str, Any]) -> str:
    """The tables as Markdown."""
    lines = ["# The quantization ladder", ""]
    for run in report["runs"]:
        lines += [f"## {run['run']}", "", words(run), "", *table(run["rows"]), ""]
    return "\n".join(lines) + "\n"


def words(run: Mapping[str, Any]) -> str:
    imatrix = run["imatrix"] or {}
    found = run["machine"]
    said = (
        f"{run['date']}, {found['cpu']}, {found['cpus']} processors, load {found['load_1_min']} at the end. "
    )
    said += f"{run['seconds'] / 60:.1f} minutes for writing, measuring and judging; picked: {run['picked'] or 'none'}. "
    said += f"16-bit file: {run['f16_bytes'] / MIB:,.0f} MiB. KL in nats a token from it."
    if imatrix:
        said += f" Importances from {imatrix['tokens']:,} tokens ({imatrix['method']});"
        said += f" KL and importances on {imatrix['texts']}."
    return said


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    head = "| quant | MiB | KL plain | KL imatrix | kept | top-1 | prompt tok/s | ms a token | MB used | gate | why |"
    lines = [head, "|---|" + "---:|" * 3 + "---|" + "---:|" * 4 + "---|---|"]
    for one in rows:
        kl = one["kl_by_variant"]
        hurt = ", imatrix hurt" if one["imatrix_hurt"] else ""
        cells = [
            one["quant"], f"{one['bytes'] / MIB:,.1f}",
            number(kl.get("plain"), ".3g"), number(kl.get("imatrix"), ".3g"),
            one["variant"] + hurt, number(one["top1"], ".1%"), number(one["prompt_tok_s"], ",.0f"),
            number(one["decode_ms"], ".1f"), number(one["memory_mb"], ",.0f"), one["verdict"] or "not judged",
            one["reason"].replace("|", "/"),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


if __name__ == "__main__":
    raise SystemExit(main())
