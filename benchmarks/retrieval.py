"""The search beside two peers on the same chunks and questions: tantivy with English stems, rank_bm25 on plain words.

    python benchmarks/retrieval.py --data ../shared/data            writes benchmarks/results/retrieval.json
    python benchmarks/retrieval.py --data … --limit 50 --no-write   a look at fewer questions

PubMedQA: is the abstract that a question belongs to among the first k documents found among all abstracts? Chunks are
cut once, by the harness, and every search gets the same ones. Timed are the index and each question, in one process and
one thread; reading files is not. Ours cuts the chunks, digests them and looks for planted instructions within its index
time, which the peers don't. Peers live in an environment of their own, below $HARNESS_PEERS
(~/.cache/dragongate/peers unless set), which is made if it is not there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from harness.files import write_json
from harness.retrieval.chunks import Chunk, cut
from harness.retrieval.documents import Document
from harness.retrieval.index import CHUNK_WORDS, build_index

PINS = ("tantivy==0.27.0", "rank-bm25==0.2.2")
PEERS = Path(os.environ.get("HARNESS_PEERS", "~/.cache/dragongate/peers")).expanduser()
RESULT = Path(__file__).parent / "results" / "retrieval.json"
AT = (1, 5)
ASKED = 25
"""Chunks that are asked for, so that five documents are among them."""

PEER = """
import json, re, sys, time
from importlib.metadata import version
which, path, asked = sys.argv[1], sys.argv[2], int(sys.argv[3])
work = json.load(open(path, encoding="utf-8"))
chunks, questions = work["chunks"], work["questions"]
words = lambda text: re.findall(r"[^\\W_]+", text.lower())
began = time.perf_counter()
if which == "tantivy":
    import tantivy
    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("place", stored=True)
    builder.add_text_field("text", tokenizer_name="en_stem")
    index = tantivy.Index(builder.build())
    writer = index.writer(num_threads=1)
    for place, chunk in enumerate(chunks):
        writer.add_document(tantivy.Document(place=place, text=chunk["text"]))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher = index.searcher()
    def search(question):
        query = index.parse_query(" ".join(words(question)), ["text"])
        return [searcher.doc(at)["place"][0] for _, at in searcher.search(query, asked).hits]
    name = "tantivy"
else:
    from rank_bm25 import BM25Okapi
    index = BM25Okapi([words(chunk["text"]) for chunk in chunks])
    def search(question):
        scores = index.get_scores(words(question))
        return [int(at) for at in scores.argsort()[::-1][:asked]]
    name = "rank-bm25"
index_s = time.perf_counter() - began
found, ms = [], []
for question in questions:
    began = time.perf_counter()
    places = search(question)
    ms.append((time.perf_counter() - began) * 1000)
    found.append([chunks[place]["document"] for place in places])
print(json.dumps({"index_s": index_s, "ms": ms, "found": found, "version": version(name)}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = os.environ.get("HARNESS_DATA")
    parser.add_argument("--data", type=Path, default=Path(data) if data else None, required=data is None)
    parser.add_argument("--limit", type=int, default=None, help="questions; all documents are searched")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args()
    rows = read_rows(options.data / "healthcare" / "pubmedqa")
    chunks = cut(list(map(as_document, rows)), words=CHUNK_WORDS)
    asked = rows[: options.limit]
    python = peer_python()
    searches = {
        "harness": ours(rows, asked), **{one: theirs(python, one, chunks, asked) for one in ("tantivy", "rank_bm25")}
    }  # fmt: skip
    document = report(searches, asked, len(rows), len(chunks))
    if not options.no_write:
        write_json(RESULT, document)
    print(json.dumps(document, indent=1) if options.json else words(document))
    return 0


def read_rows(folder: Path) -> list[dict[str, Any]]:
    texts = [(folder / f"{split}.jsonl").read_text("utf-8") for split in ("train", "eval")]
    return [json.loads(line) for text in texts for line in text.split("\n") if line]


def as_document(row: dict[str, Any]) -> Document:
    return Document(row["id"], row["context"], hashlib.sha256(row["context"].encode()).hexdigest())


def ours(rows: Sequence[dict[str, Any]], asked: Sequence[dict[str, Any]]) -> dict[str, Any]:
    documents = list(map(as_document, rows))
    began = time.perf_counter()
    index = build_index(documents)
    index_s = time.perf_counter() - began
    found, ms = [], []
    for row in asked:
        began = time.perf_counter()
        hits = index.search(row["input"], ASKED)
        ms.append((time.perf_counter() - began) * 1000)
        found.append([hit.chunk.document for hit in hits])
    return {"index_s": index_s, "ms": ms, "found": found, "version": index.snapshot}


def theirs(
    python: Path, which: str, chunks: Sequence[Chunk], asked: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    work = {"chunks": [chunk._asdict() for chunk in chunks], "questions": [row["input"] for row in asked]}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "work.json"
        path.write_text(json.dumps(work), encoding="utf-8")
        command = [str(python), "-c", PEER, which, str(path), str(ASKED)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{which} ended with {done.returncode}\n{done.stderr[-4000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def peer_python() -> Path:
    """The interpreter of the peers' environment, made and pinned if it is not there."""
    python = PEERS / "retrieval" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
    probe = [str(python), "-c", "import rank_bm25, tantivy"]
    if subprocess.run(probe, capture_output=True).returncode:
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PINS], check=True)
    return python


def report(
    searches: dict[str, dict[str, Any]], asked: Sequence[dict[str, Any]], documents: int, chunks: int
) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "data": "healthcare/pubmedqa",
        "questions": len(asked), "documents": documents, "chunks": chunks,
        "searches": {
            name: {
                "version": one["version"], "index_s": round(one["index_s"], 3), "ms_p50": round(median(one["ms"]), 3),
                **{f"recall@{k}": round(recall(one["found"], asked, k), 4) for k in AT},
            }
            for name, one in searches.items()
        },
    }  # fmt: skip


def recall(found: Sequence[Sequence[str]], asked: Sequence[dict[str, Any]], k: int) -> float:
    """The share of questions whose document is among the first k different ones."""
    firsts = (list(dict.fromkeys(names))[:k] for names in found)
    return sum(row["id"] in names for row, names in zip(asked, firsts, strict=True)) / len(asked)


def words(document: dict[str, Any]) -> str:
    head = (
        f"{document['questions']} questions, {document['documents']} documents, {document['chunks']} chunks"
    )
    lines = [
        f"  {name:<10} " + "  ".join(f"recall@{k} {one[f'recall@{k}']:.3f}" for k in AT)
        + f"  {one['ms_p50']:.2f} ms a question  index {one['index_s']:.2f} s"
        for name, one in document["searches"].items()
    ]  # fmt: skip
    return "\n".join([head, *lines])


if __name__ == "__main__":
    raise SystemExit(main())
