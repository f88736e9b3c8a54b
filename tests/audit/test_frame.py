"""The frame holds what the record holds, in polars and in pandas."""

import subprocess
import sys

import polars as pl

from factories_audits import make_audit
from gradience.audit.metrics import METRICS

WITHOUT = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None  # import raises ImportError, as where it is not installed
sys.path.insert(0, {tests!r})
from factories_audits import make_audit
from gradience.errors import MissingExtraError
audit = make_audit(blocks=2, broken=True)
try:
    frame = audit.to_frame()
except MissingExtraError as error:
    print("refused:", error, error.remedy)
else:
    assert list(frame["name"]) == [a.name for a in audit.layers]
    assert list(frame["rank"]) == [16] * len(audit.layers)
    assert frame["udr"].isna().sum() == 1
    assert frame["udr"].dtype == "float64"
    assert frame["stable_rank"][0] == audit.layers[0].metrics["stable_rank"]
    print(type(frame).__module__.split(".")[0])
"""


def run_without(*blocked, tests):
    program = WITHOUT.format(blocked=blocked, tests=str(tests))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_layer_is_a_row_and_every_metric_a_column():
    audit = make_audit(blocks=3)
    frame = audit.to_frame()
    assert isinstance(frame, pl.DataFrame)
    assert frame["name"].to_list() == [a.name for a in audit.layers]
    assert set(METRICS) <= set(frame.columns)
    for name in METRICS:
        assert frame[name].dtype == pl.Float64
        assert frame[name].to_list() == [a.metrics.get(name) for a in audit.layers]
    assert frame.select("out", "in").rows() == [a.shape for a in audit.layers]
    assert frame["udr_upper"].to_list() == [a.base.udr_upper for a in audit.layers]


def test_an_unmeasured_value_is_null_and_not_zero():
    audit = make_audit(blocks=2, broken=True)
    frame = audit.to_frame()
    lost = next(a.name for a in audit.layers if "frobenius_norm" in a.unmeasured)
    row = frame.row(by_predicate=pl.col("name") == lost, named=True)
    assert [row[name] for name in METRICS] == [None] * len(METRICS)
    assert row["udr_lower"] is None


def test_without_a_base_the_udr_columns_are_there_and_null():
    frame = make_audit(blocks=1, with_base=False).to_frame()
    assert frame["udr"].null_count() == frame.height
    assert frame["udr"].dtype == pl.Float64


def test_pandas_serves_where_polars_is_not_installed(pytestconfig):
    assert run_without("polars", tests=pytestconfig.rootpath / "tests") == "pandas\n"


def test_with_neither_the_error_names_the_extra(pytestconfig):
    said = run_without("polars", "pandas", tests=pytestconfig.rootpath / "tests")
    assert said.startswith("refused:")
    assert 'pip install "gradience[frame]"' in said
