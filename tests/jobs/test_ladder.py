from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from harness.evals.results import State, Verdict
from harness.export.gguf import convert
from harness.files import read_json, sha256_file
from harness.jobs.candidate import Candidate
from harness.jobs.exporting import Exporter
from harness.jobs.ladder import Ladder, texts_of
from harness.models.identity import gguf_identity
from harness.specs.device import Device
from harness.specs.recipe import Export
from tests.export.tiny_models import CORPUS, Item, item, save_checkpoint

pytestmark = pytest.mark.usefixtures("warm")
TRAIN = [item(f"t{at}", text) for at, text in enumerate(CORPUS)]
DEV = [item(f"d{at}", text[::-1], "no") for at, text in enumerate(CORPUS[:3])]


class Told:
    """Progress that is kept instead of written."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.artifacts: list[str] = []

    def note(self, text: str, level: str = "info") -> None:
        self.notes.append(text)

    def move(self, done: int, total: int, unit: str, note: str = "") -> None:
        assert 0 <= done <= total

    def event(self, name: str, /, **more: Any) -> None:
        self.artifacts.append(more["name"])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ladder")
    checkpoint = save_checkpoint(folder / "model", hidden_size=256, intermediate_size=256, head_dim=64)
    return convert(checkpoint, folder / "f16.gguf", metadata={}).path


def candidate(
    folder: Path, source: Path, *, dev: list[Item] | None = None, memory_mb: int = 400, **export: Any
) -> Any:
    """A run that has come as far as its 16-bit file."""
    target = folder / "artifacts" / "model-f16.gguf"
    if not target.exists():
        target.parent.mkdir(parents=True)
        target.symlink_to(source)
    recipe = SimpleNamespace(
        recipe="tiny", export=Export(**export), device=Device(name="laptop", memory_mb=memory_mb)
    )
    splits = {"train": TRAIN, "dev": DEV if dev is None else dev}
    return SimpleNamespace(
        folder=folder, artifacts=target.parent, threads=1, loaded=SimpleNamespace(recipe=recipe),
        examples=splits.__getitem__, progress=Told(),
    )  # fmt: skip


def ladder(of: Any) -> bool:
    return Ladder(of).build()


def kept(of: Any) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = read_json(of.artifacts / "ladder.json")["rows"]
    return rows


def test_each_quant_is_tried_with_importances_and_without_and_the_nearer_one_is_kept(
    source: Path, tmp_path: Path
) -> None:
    import gguf

    of = candidate(tmp_path, source, quants=("q8_0", "q4_0", "iq2_xs"), imatrix="auto")

    assert ladder(of) is False

    rows = kept(of)
    tried = {quant: [one["variant"] for one in row["tried"]] for quant, row in rows.items()}
    assert tried == {"q8_0": ["plain"], "q4_0": ["plain", "imatrix"], "iq2_xs": ["imatrix"]}
    best = min(rows["q4_0"]["tried"], key=lambda one: one["mean_kl"])
    assert rows["q4_0"]["variant"] == best["variant"]
    path = of.artifacts / "model-q4_0.gguf"
    fidelity = read_json(of.folder / "stages" / "q4_0" / "fidelity.json")
    assert fidelity["identity"] == gguf_identity(path).digest
    assert fidelity["mean_kl"] == best["mean_kl"]
    assert fidelity["decode_ms"] > 0
    names = gguf.GGUFReader(path).fields
    assert ("dragongate.imatrix_sha256" in names) is (best["variant"] == "imatrix")
    if best["variant"] == "plain":
        assert any("imatrix hurt" in text for text in of.progress.notes)
    left = sorted(one.name for one in of.artifacts.iterdir())
    assert left == [
        "imatrix.gguf", "ladder.json", "model-f16.gguf", "model-iq2_xs.gguf", "model-q4_0.gguf", "model-q8_0.gguf",
    ]  # fmt: skip


def test_sizes_are_told_before_the_first_file_is_written(source: Path, tmp_path: Path) -> None:
    of = candidate(tmp_path, source, quants=("q8_0", "q4_0"))

    ladder(of)

    sizes = {one: (of.artifacts / f"model-{one}.gguf").stat().st_size / 2**20 for one in ("q8_0", "q4_0")}
    assert of.progress.notes[0] == (
        f"sizes to come: q8_0 {sizes['q8_0']:,.0f} MiB, q4_0 {sizes['q4_0']:,.0f} MiB"
    )


def test_a_second_climb_writes_nothing_and_a_changed_file_is_written_again(
    source: Path, tmp_path: Path
) -> None:
    of = candidate(tmp_path, source, quants=("q8_0", "q4_0"))
    ladder(of)
    before = {path.name: sha256_file(path) for path in of.artifacts.glob("model-q*.gguf")}

    assert ladder(of) is True

    (of.artifacts / "model-q4_0.gguf").write_bytes(b"torn")
    again = candidate(tmp_path, source, quants=("q8_0", "q4_0"))
    assert ladder(again) is False
    assert again.progress.artifacts == ["q4_0"]
    assert {path.name: sha256_file(path) for path in of.artifacts.glob("model-q*.gguf")} == before


def test_groups_that_hurt_get_better_types_within_the_budget(source: Path, tmp_path: Path) -> None:
    of = candidate(tmp_path, source, quants=("q4_0",), sensitivity=7, sensitivity_budget_frac=0.2)

    ladder(of)

    row = kept(of)["q4_0"]
    plain, better = row["tried"]
    assert (plain["variant"], better["variant"]) == ("plain", "plain+types")
    assert plain["bytes"] < better["bytes"] <= plain["bytes"] * 1.2
    assert row["variant"] == ("plain+types" if better["mean_kl"] < plain["mean_kl"] else "plain")
    scan = read_json(of.artifacts / "ladder.json")["sensitivity"]
    assert scan["quant"] == "q4_0"
    assert len(scan["costs"]) == 7
    assert not (of.artifacts / "scan.gguf").exists()


def test_what_measures_never_weighs() -> None:
    def of(**splits: list[Item]) -> Candidate:
        return SimpleNamespace(examples=splits.__getitem__)  # type: ignore[return-value]

    with_dev, without = texts_of(of(train=TRAIN, dev=DEV)), texts_of(of(train=TRAIN, dev=[]))

    assert with_dev.names == "dev and train"
    for texts in (with_dev, without):
        ids = {one.id for one in texts.measured}, {one.id for one in texts.weighed}
        assert all(ids)
        assert not ids[0] & ids[1]


def test_a_quant_that_needs_importances_is_refused_by_the_recipe_without_them() -> None:
    with pytest.raises(ValidationError, match="iq2_xs need importances: set imatrix"):
        Export(quants=("q8_0", "iq2_xs"))
    assert Export(quants=("q8_0", "iq2_xs"), imatrix="auto").imatrix == "auto"


class Judge:
    """Stages that open the model and hold it to the rules of the export alone."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.asked: list[str] = []

    def run(self, stage: str, identity: str, open_model: Any, **more: Any) -> tuple[Verdict, bool]:
        model = open_model()
        try:
            assert model.identity.digest == identity
        finally:
            model.close()
        self.asked.append(stage)
        rules = tuple(replace(rule, verdict=self.state) for rule in more["extra_rules"]())
        return Verdict(stage, identity, "l" * 64, self.state, rules), False


@pytest.mark.parametrize("state", [State.PASS, State.FAIL])
def test_an_8_bit_cache_is_judged_as_a_model_of_its_own(state: State, source: Path, tmp_path: Path) -> None:
    of = candidate(tmp_path, source, quants=("q8_0",), caches=("f16", "q8_0"))
    of.loaded.first, of.stages = "tiny", Judge(state)
    ladder(of)

    full, half = Exporter(of).judge_caches("q8_0")

    values = 2 * 2 * (64 + 64)  # layers, heads that hold keys and values, numbers of each
    assert (full.type, full.bytes_per_tok, full.verdict) == ("f16", 2 * values, "PASS")
    assert (half.type, half.bytes_per_tok, half.verdict) == ("q8_0", values * 34 / 32, state.value)
    assert full.mean_kl is not None
    assert half.mean_kl is not None
    assert half.mean_kl != full.mean_kl
    assert of.stages.asked == ["q8_0-kv-q8_0"]


def test_an_8_bit_cache_that_llama_cpp_cannot_hold_is_told_and_not_judged(tmp_path: Path) -> None:
    narrow = save_checkpoint(tmp_path / "model", head_dim=16)
    source = convert(narrow, tmp_path / "narrow.gguf", metadata={}).path
    of = candidate(tmp_path / "run", source, quants=("q8_0",), caches=("f16", "q8_0"))
    of.loaded.first, of.stages = "tiny", Judge(State.PASS)
    ladder(of)

    half = Exporter(of).judge_caches("q8_0")[1]

    assert (half.verdict, half.mean_kl) == (None, None)
    assert "q8_0" in half.reason
    assert of.stages.asked == []


def test_a_recipe_that_names_one_cache_costs_no_second_judgement(source: Path, tmp_path: Path) -> None:
    of = candidate(tmp_path, source, quants=("q8_0",))
    of.stages = Judge(State.PASS)
    ladder(of)

    assert [row.type for row in Exporter(of).judge_caches("q8_0")] == ["f16"]
    assert of.stages.asked == []
