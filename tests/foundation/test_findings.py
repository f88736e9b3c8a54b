"""Findings: order, --fail-on, and codes that are written once."""

import pytest

from gradience.audit.finding_kinds import AUDIT
from gradience.errors import UsageError
from gradience.findings import Catalogue, Severity, by_weight, check_fail_on, failing


def make_findings():
    kinds = Catalogue()
    note = kinds.add("note", Severity.INFO, "A note.", "Nothing.")
    worry = kinds.add("worry", Severity.WARNING, "A worry.", "Look.")
    broken = kinds.add("broken", Severity.ERROR, "Broken.", "Mend.")
    return [note.found("n"), worry.found("w"), broken.found("b")]


def test_the_gravest_comes_first() -> None:
    assert [f.code for f in by_weight(make_findings())] == ["broken", "worry", "note"]


@pytest.mark.parametrize(
    ("asked", "codes"),
    [
        (["error"], ["broken"]),
        (["warning"], ["worry", "broken"]),
        (["info"], ["note", "worry", "broken"]),
        (["note"], ["note"]),
        (["note", "error"], ["note", "broken"]),
        ([], []),
    ],
)
def test_fail_on_takes_codes_and_severities(asked, codes) -> None:
    assert [f.code for f in failing(make_findings(), asked)] == codes


def test_fail_on_refuses_a_typo_and_names_the_code() -> None:
    with pytest.raises(UsageError, match="--fail-on untoched") as caught:
        check_fail_on(["untoched"], AUDIT, page="docs/findings.md")
    assert caught.value.remedy == "Did you mean untouched?"


def test_a_code_is_written_once() -> None:
    kinds = Catalogue()
    kinds.add("x", Severity.INFO, "m", "r")
    with pytest.raises(ValueError, match="registered already"):
        kinds.add("x", Severity.INFO, "m", "r")


def test_every_kind_says_what_it_means_and_what_helps() -> None:
    for code, kind in AUDIT.items():
        assert code == kind.code
        assert kind.meaning.endswith(".")
        assert kind.remedy.endswith((".", "DIR."))
