"""A table on a narrow page: whole numbers, and no column that goes missing without a word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradience.cli.render import fitting, show
from gradience.page import Table, Text

TABLE = Table(
    title="T",
    head=("module", "rank", "UDR", "stable rank", "utilization"),
    rows=(("layers.0.q_proj", "8", "0.338", "1.33", "0.66"),),
    spare=("stable rank", "utilization", "no such column"),
)


@pytest.mark.parametrize(
    ("width", "left_out"),
    [(200, ()), (48, ("stable rank",)), (40, ("stable rank", "utilization"))],
)
def test_spare_columns_go_in_their_order(width: int, left_out: tuple[str, ...]) -> None:
    shown, gone = fitting(TABLE, width)
    assert gone == left_out
    assert [name for name in TABLE.head if name not in left_out] == list(shown.head)
    assert all(len(row) == len(shown.head) for row in shown.rows)


@given(st.integers(min_value=1, max_value=300))
def test_only_spare_columns_go(width: int) -> None:
    shown, gone = fitting(TABLE, width)
    assert set(gone) <= set(TABLE.spare)
    assert set(shown.head) | set(gone) == set(TABLE.head)


def test_one_empty_line_is_between_two_tables(capsys) -> None:
    show((Text(text="headline"), TABLE, TABLE, Text(text="end")))
    assert "\n\n\n" not in capsys.readouterr().out


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_what_is_left_out_is_said(columns: int, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    show((Text(text="headline"), TABLE))
    out = capsys.readouterr().out
    for name in TABLE.head:
        assert name.split()[0] in out
    assert "0.338" in out
    assert all(line == line.rstrip() for line in out.splitlines())
