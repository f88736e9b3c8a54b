"""Artifacts of earlier releases stay readable: one file per schema, never edited."""

from pathlib import Path

import pytest

from gradience import artifacts
from gradience.audit.records import SCHEMA, AdapterAudit
from gradience.bench.records import REPORT_SCHEMA, RESULT_SCHEMA, BenchReport, TrialResult
from gradience.vnext.audit import audit_lora_peft_dir

HERE = Path(__file__).parent
DEMO = Path("examples/demo_adapter")


def read() -> AdapterAudit:
    path = HERE / "audit.v1.json"
    return artifacts.decode(path.read_bytes(), SCHEMA, AdapterAudit, source=str(path))


def test_the_first_audit_schema_is_still_read() -> None:
    audit = read()
    assert audit.max_rank == 8
    assert len(audit.layers) == 18
    assert audit.summary()["stable_rank_median"] == pytest.approx(1.4, abs=0.01)


def test_the_demo_adapter_still_has_the_numbers_of_the_golden_file() -> None:
    golden, now = read(), audit_lora_peft_dir(HERE.parents[1] / DEMO, use_cache=False)
    assert [a.name for a in now.layers] == [a.name for a in golden.layers]
    for new, old in zip(now.layers, golden.layers, strict=True):
        assert new.singular_values == pytest.approx(old.singular_values, rel=1e-9)
        assert new.metrics == pytest.approx(old.metrics, rel=1e-9)
    assert now.fingerprint == golden.fingerprint


def test_the_first_bench_schema_is_still_read() -> None:
    path = HERE / "bench.v1.json"
    report = artifacts.decode(path.read_bytes(), REPORT_SCHEMA, BenchReport, source=str(path))
    assert {v.variant: v.clusters for v in report.verdicts} == {
        "truncate-r8": 20,
        "truncate-r4": 20,
    }
    assert len(report.scores) == len(report.results) == 21


def test_the_first_trial_result_schema_is_still_read() -> None:
    path = HERE / "trial_result.v1.json"
    result = artifacts.decode(path.read_bytes(), RESULT_SCHEMA, TrialResult, source=str(path))
    assert result.trial.spec.variant.name == "probe"
    assert len(result.items.ids) == len(result.items.scores) == len(result.items.clusters) == 40
