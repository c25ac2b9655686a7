"""A small release, and what is done to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.evals.results import Reading, RuleVerdict, Scorecard, State, Verdict
from harness.export.release import ReleaseContents
from harness.export.verify import file_identity
from harness.files import digest_json, sha256_file
from harness.specs.gate import Gate

GATES = (
    Gate(metric="accuracy", at_least=0.8),
    Gate(metric="recall", per="label", at_least=0.6),
    Gate(metric="accuracy", versus="base", no_worse_than=0.02),
    Gate(metric="size_mb", at_most=100),
)
Attack = Callable[[Path], object]


TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LINEAGE = {
    "base": {
        "reference": "tiny",
        "digest": "a" * 64,
        "kind": "transformers",
        "weights": "b" * 64,
        "adapter": "",
    },
    "data": [
        {
            "suite": "clauses",
            "files": [{"name": "train.jsonl", "bytes": 12, "sha256": "c" * 64}],
            "splits": [{"split": "train", "n_records": 8, "n_units": 4, "digest": "d" * 64}],
        }
    ],
    "code": {"harness": "0.1.0", "sha256": "e" * 64},
    "libraries": {"numpy": "2.4.6"},
}


def make_rules(state: State = State.PASS) -> tuple[RuleVerdict, ...]:
    def rule(gate: Gate, slice_: str, low: float, high: float, threshold: float) -> RuleVerdict:
        return RuleVerdict(
            gate.name, "clauses", gate.metric, slice_, 200, 0.9, low, high, threshold, state, "so"
        )

    return (
        RuleVerdict("errors within the suite's limit", "clauses", "error_rate", "all", 200, 0.0, None, None, 0.02,
                    State.PASS, "0 of 200"),
        rule(GATES[0], "all", 0.86, 0.94, 0.8),
        rule(GATES[1], "label=cap | on <liability>", 0.7, 0.99, 0.6),
        rule(GATES[2], "all", -0.01, 0.2, -0.02),
        rule(GATES[3], "all", 50.0, 50.0, 100.0),
    )  # fmt: skip


def write_gguf(path: Path, template: str | None = TEMPLATE, *, size: int = 4) -> Path:
    """A GGUF with one tensor and four tokens, by the gguf package."""
    import numpy as np
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "<|im_start|>", "<|im_end|>"])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    if template is not None:
        writer.add_chat_template(template)
    writer.add_tensor("token_embd.weight", np.arange(64 * size, dtype=np.float32).reshape(size, 64))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def make_contents(
    folder: Path, *, version: int = 3, sequence: int | None = 1_000, size: int = 40
) -> ReleaseContents:
    """A candidate whose picked file passed; `size` makes other bytes."""

    gguf = folder / "model-q4_0.gguf"
    write_gguf(gguf, size=size)
    parts = {
        "format": 1,
        "gates": digest_json([gate.model_dump() for gate in GATES]),
        "suites": {},
        "code": "c",
    }
    lock = {**parts, "digest": digest_json(parts)}
    sha = sha256_file(gguf)
    identity = file_identity(sha)
    reading = Reading("accuracy", "all", 200, 180, 0.9, 0.85, 0.94)
    base = Verdict("base", "b" * 64, lock["digest"], State.FAIL, make_rules(State.FAIL))
    return ReleaseContents(
        recipe={"recipe": "clauses", "version": version, "domain": "legal", "description": "Names *clauses*.",
                "gates": [gate.model_dump(mode="json") for gate in GATES]},
        picked="q4_0", gguf=gguf, gguf_sha256=sha,
        verdicts={"base": base, "q4_0": Verdict("q4_0", identity, lock["digest"], State.PASS, make_rules())},
        scorecards={"q4_0": {"clauses": Scorecard("clauses", "q4_0", identity, 200, 0, 1, (reading,))}},
        lock=lock, lineage=LINEAGE, sequence=sequence,
        calibrations={"clauses": {"suite": "clauses", "n": 48, "temperature": 1.25, "coverage": []}},
        fidelity={"q4_0": {"n_tok": 512, "mean_kl": 0.04, "max_kl": 1.5, "top1": 0.93, "token_parity": True}},
        pick={"picked": "q4_0", "rows": [{"quant": "q8_0", "bytes": 2_000_000, "is_picked": False,
                                          "reason": "passes, and is 97% larger than q4_0"}]},
        notes=("a tiny model says little",),
    )  # fmt: skip


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def edit(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((folder / name).read_text())
    change(document)
    (folder / name).write_text(json.dumps(document))


def sign_again(folder: Path) -> None:
    """What a thorough attacker does last: the manifest fits the folder again."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for path in manifest["files"]:
        file = folder / path
        manifest["files"][path] = {"sha256": sha256_file(file), "bytes": file.stat().st_size}
    model = manifest["model"]
    model.update(manifest["files"][model["file"]])
    (folder / "manifest.json").write_text(json.dumps(manifest))
