"""The originals that can be fetched."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from harness.data.originals.base import Original
from harness.data.originals.documents import cuad, scifact, scitldr, tatqa
from harness.data.originals.labelled import banking77, clinc150, hatecheck, xstest
from harness.data.originals.questions import bbq, mmlu, pubmedqa, truthfulqa

_ALL = (
    Original(
        "factuality/truthfulqa", "github.com/sylinrl/TruthfulQA: TruthfulQA.csv", "Apache-2.0",
        {"questions": ("TruthfulQA.csv", "validation-*.parquet")}, truthfulqa,
    ),
    Original(
        "fairness/bbq", "github.com/nyu-mll/BBQ: data/*.jsonl", "CC BY 4.0",
        {"questions": ("data/*.jsonl", "[A-Z]*.jsonl")}, bbq,
    ),
    Original(
        "fairness/hatecheck", "github.com/paul-rottger/hatecheck-data: test_suite_cases.csv", "CC BY 4.0",
        {"cases": ("test_suite_cases.csv", "test.csv")}, hatecheck,
    ),
    Original(
        "finance/tatqa", "github.com/NExTplusplus/TAT-QA: dataset_raw/*.json", "CC BY 4.0",
        {"reports": ("tatqa_dataset_dev.json", "tatqa_dataset_test_gold.json", "tatqa_dataset_train.json")}, tatqa,
    ),
    Original(
        "healthcare/pubmedqa", "github.com/pubmedqa/pubmedqa: data/ori_pqal.json", "MIT",
        {"questions": ("ori_pqal.json",)}, pubmedqa,
    ),
    Original(
        "legal/cuad_clauses", "zenodo.org/records/4595826 or the hub's theatticusproject/cuad: master_clauses.csv",
        "CC BY 4.0", {"clauses": ("master_clauses.csv",)}, cuad,
    ),
    Original(
        "safety/xstest", "github.com/paul-rottger/xstest: xstest_prompts.csv", "CC BY 4.0",
        {"prompts": ("xstest_prompts.csv", "xstest_v2_prompts.csv")}, xstest,
    ),
    Original(
        "science/scifact_pairs", "github.com/allenai/scifact: claims_train.jsonl, claims_dev.jsonl, corpus.jsonl",
        "claims CC BY 4.0, abstracts ODC-By 1.0",
        {"claims": ("claims_train.jsonl", "claims_dev.jsonl"), "corpus": ("corpus.jsonl",)}, scifact,
    ),
    Original(
        "science/scitldr", "github.com/allenai/scitldr: SciTLDR-Data/SciTLDR-A/*.jsonl", "Apache-2.0",
        {"papers": ("SciTLDR-A/*.jsonl", "train.jsonl", "dev.jsonl", "test.jsonl")}, scitldr,
    ),
    Original(
        "support/banking77", "github.com/PolyAI-LDN/task-specific-datasets: banking_data/*.csv", "CC BY 4.0",
        {"messages": ("train.csv", "test.csv")}, banking77,
    ),
    Original(
        "support/clinc150_oos", "github.com/clinc/oos-eval: data/data_full.json, data/domains.json", "CC BY 3.0",
        {"requests": ("data_full.json",), "domains": ("domains.json",)}, clinc150,
    ),
    Original(
        "uncertainty/mmlu", "github.com/hendrycks/test or the hub's cais/mmlu", "MIT",
        {"questions": ("all/test-*.parquet", "test/*_test.csv", "*_test.csv", "test-*.parquet")}, mmlu,
    ),
)  # fmt: skip
ORIGINALS: Mapping[str, Original] = MappingProxyType({one.name: one for one in _ALL})
