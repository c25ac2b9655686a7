from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.export.divergence import Reference
from harness.export.forward import Source
from harness.export.quantize import Override, TensorPlan, dry_run, quantize
from harness.export.sensitivity import Cost, Group, better_types, groups_of, scan
from tests.export.tiny_models import item

pytestmark = pytest.mark.usefixtures("warm")
KINDS = ("attn_k", "attn_output", "attn_q", "attn_v", "ffn_down", "ffn_gate", "ffn_up")
ITEMS = [
    item("one", "The licensee shall pay 30 dollars.\n\n1. now"),
    item("two", "naïve café 東京都 🙂", "no"),
]


def table(blocks: int) -> list[TensorPlan]:
    matrices = [f"blk.{block}.{kind}.weight" for block in range(blocks) for kind in KINDS]
    rows = [TensorPlan(name, 64, "f16", "q4_0") for name in matrices]
    others = [
        TensorPlan("token_embd.weight", 64, "f16", "q8_0"),
        TensorPlan("blk.0.attn_norm.weight", 64, "f32", "f32"),
    ]
    return [*others, *rows]


@pytest.mark.parametrize(("wanted", "found"), [(1, 7), (7, 7), (20, 14), (21, 21), (64, 63)])
def test_groups_are_kinds_cut_into_runs_of_blocks(wanted: int, found: int) -> None:
    assert len(groups_of(table(30), wanted)) == found


def test_each_matrix_of_a_block_is_in_exactly_one_group() -> None:
    plan = table(12)
    groups = groups_of(plan, 21)

    for row in plan:
        matches = [group.name for group in groups if re.search(group.pattern, row.name)]
        assert len(matches) == (1 if row.after == "q4_0" else 0), row.name


def test_a_group_names_its_kind_and_blocks() -> None:
    assert groups_of(table(12), 21)[3].name == "attn_output 0-3"
    assert groups_of([], 7) == []


def test_only_the_group_is_rounded(llama_gguf: Path, tmp_path: Path) -> None:
    import gguf

    seen: list[set[str]] = []

    def measure(path: Path) -> float:
        tensors = gguf.GGUFReader(path).tensors
        seen.append({tensor.name for tensor in tensors if tensor.tensor_type.name == "Q4_0"})
        return 0.5

    groups = groups_of(dry_run(llama_gguf, ["q4_0"], threads=1)[0].table, 14)
    costs = scan(llama_gguf, "q4_0", groups[2:4], measure, tmp_path / "scan.gguf", threads=1)

    assert [cost.group for cost in costs] == groups[2:4]
    assert seen == [{"blk.0.attn_output.weight"}, {"blk.1.attn_output.weight"}]
    assert list(tmp_path.iterdir()) == []


def test_what_a_group_costs_is_the_divergence_of_that_file(llama_gguf: Path, tmp_path: Path) -> None:
    groups = groups_of(dry_run(llama_gguf, ["q4_0"], threads=1)[0].table, 7)[:2]
    with Reference(Source(llama_gguf), ITEMS, tmp_path / "x.logits", threads=1) as reference:

        def measure(path: Path) -> float:
            return reference.divergence(Source(path), threads=1).mean_kl

        costs = scan(llama_gguf, "q4_0", groups, measure, tmp_path / "scan.gguf", threads=1)
        whole = quantize(llama_gguf, tmp_path / "whole.gguf", "q4_0", threads=1).path

        assert all(0 < cost.mean_kl < measure(whole) for cost in costs)


def test_better_types_go_where_a_byte_helps_most_and_stay_within_the_budget(llama_gguf: Path) -> None:
    groups = groups_of(dry_run(llama_gguf, ["q4_0"], threads=1)[0].table, 14)
    harm = {group.name: 0.01 for group in groups} | {"attn_v 1-1": 5.0, "ffn_up 0-0": 0.0}
    costs = [Cost(group, harm[group.name]) for group in groups]
    plain = dry_run(llama_gguf, ["q4_0"], threads=1)[0].bytes

    chosen = better_types(llama_gguf, "q4_0", costs, budget_frac=0.05, threads=1)

    size = dry_run(llama_gguf, ["q4_0"], overrides=chosen, threads=1)[0].bytes
    assert plain < size <= plain * 1.05
    assert chosen[0].pattern == r"^blk\.(1)\.attn_v\.weight$"
    assert not any("ffn_up" in override.pattern and "(0)" in override.pattern for override in chosen)


def test_no_budget_means_no_better_type(llama_gguf: Path) -> None:
    costs = [Cost(Group("attn_v 0-1", r"^blk\.(0|1)\.attn_v\.weight$"), 1.0)]

    assert better_types(llama_gguf, "q4_0", costs, budget_frac=1e-6, threads=1) == []
    assert better_types(llama_gguf, "q4_0", costs, budget_frac=0.5, threads=1) == [
        Override(r"^blk\.(0|1)\.attn_v\.weight$", "q6_k")
    ]
