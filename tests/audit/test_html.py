"""The report is one file that asks nothing of the network, trusts no name, and draws its charts."""

import subprocess
import sys
from datetime import UTC, datetime
from functools import cache

import msgspec
import pytest

from browsed import (
    Report,
    check_blocks,
    check_offline,
    check_on_desk,
    check_on_phone,
    check_policy,
    compile_specs,
    strings,
)
from factories_audits import (
    HOSTILE,
    LLAMA,
    Module,
    assemble,
    make_audit,
    make_hostile_audit,
    make_layer,
)
from gradience.audit.html import render
from gradience.audit.html.labels import kinds
from gradience.audit.html.wording import NO_PROOF
from gradience.audit.metrics import METRICS

pytest.importorskip("vl_convert", reason="the report needs gradience[html]")

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIBRARY_BYTES = 900_000


def moe_audit():
    """Names that need more than their last part, experts in one cell, a head outside of blocks."""
    layers = [
        make_layer(f"net.{i}.{path}", values=[0.1 * (i + 1), 0.05], block=f"net.{i}", rank=4)
        for i in range(3)
        for path in ("attn1.to_q", "attn2.to_q", "experts.up[0]", "experts.up[1]")
    ]
    layers.append(make_layer("lm_head", values=[0.1, 1e-9], module_type="other", rank=4))
    return assemble(layers, source="moe")


AUDITS = {
    "healthy": lambda: [make_audit(blocks=4)],
    "broken": lambda: [make_audit(blocks=4, broken=True)],
    "without a base": lambda: [make_audit(blocks=3, with_base=False, dtype="BF16")],
    "hostile": lambda: [make_hostile_audit()],
    "experts": lambda: [moe_audit()],
    "zero": lambda: [assemble([make_layer("a.0.q", values=[0.0], block="a.0")], source="zero")],
    "one value": lambda: [assemble([make_layer("q", values=[1.0], rank=1)], source="one")],
    "several": lambda: [
        make_audit(blocks=2, source="runs/a"),
        make_audit(blocks=2, source="runs/b", with_base=False),
        make_hostile_audit(),
    ],
}


@cache
def page(name):
    return Report(render(AUDITS[name](), now=NOW))


every = pytest.mark.parametrize("name", AUDITS)


@every
def test_the_page_is_balanced_and_asks_the_network_for_nothing(name):
    check_offline(page(name))


def test_the_policy_names_every_script_and_allows_no_address():
    check_policy(page("healthy"))


@every
def test_every_spec_compiles_without_a_warning(name, capfd):
    compile_specs(page(name))
    out, err = capfd.readouterr()
    assert out + err == ""


@every
def test_no_spec_holds_nan_or_leaves_its_block(name):
    check_blocks(page(name))


def test_hostile_names_are_text_and_nothing_else():
    report = page("hostile")
    assert not any(tag == "img" or "onerror" in attrs for tag, attrs in report.elements)
    assert HOSTILE in "".join(report.words)
    assert len([1 for kind, _ in report.scripts if kind is None]) == 2
    values = [row for spec in report.specs for row in spec.get("data", {}).get("values", ())]
    assert any(HOSTILE in str(row.get("m")) for row in values)


def test_texts_of_an_adapter_stand_in_data_and_domains_only():
    for spec in page("hostile").specs:
        assert not any("onerror" in text for text in strings(spec))


def test_a_lone_surrogate_does_not_stop_the_report():
    audit = msgspec.structs.replace(make_audit(blocks=1), source="a\ud800b")
    assert render([audit], now=NOW).encode("utf-8")


def test_the_table_holds_the_exact_numbers_of_the_record():
    audit = make_audit(blocks=4, broken=True)
    rows = {row[0][1]: row for row in page("broken").rows if row}
    columns = [n for n, m in METRICS.items() if m.column]
    for layer in audit.layers:
        values = [cell[0].get("data-v") for cell in rows[layer.name][-len(columns) :]]
        expected = [layer.metrics.get(name) for name in columns]
        assert [None if v is None else float(v) for v in values] == expected
        shown = [cell[1].strip() for cell in rows[layer.name][-len(columns) :]]
        for text, value in zip(shown, expected, strict=True):
            assert text == "-" if value is None else float(text) == pytest.approx(value, rel=6e-3)


def test_suggestions_carry_exact_errors_and_the_warning():
    audit = make_audit(blocks=4)
    report = page("healthy")
    exact = {float(cell[0]["data-v"]) for row in report.rows for cell in row if "data-v" in cell[0]}
    assert len(audit.suggestions) > 3
    for suggestion in audit.suggestions:
        assert {suggestion.relative_error, suggestion.worst_error, suggestion.nbytes} <= exact
    assert NO_PROOF in report.said


def test_the_verdict_and_every_finding_are_words():
    report = page("broken")
    assert "Broken" in report.said
    assert "1 error and 1 warning" in report.said
    for finding in make_audit(blocks=4, broken=True).findings:
        for text in (finding.message, finding.remedy, finding.code):
            assert text.replace("`", "") in report.said
    order = [report.said.index(code) for code in ("not_finite", "dead_modules", "base_revision")]
    assert order == sorted(order)


def test_definitions_and_provenance_are_there():
    audit = make_audit(blocks=4)
    for text in (audit.fingerprint, audit.base.fingerprint, audit.base.revision, "2026-03-01"):
        assert text in page("healthy").said
    for name in audit.overall:
        assert " ".join(METRICS[name].definition.split()) in page("healthy").said


def test_several_adapters_are_compared_and_linked():
    report = page("several")
    ids = {attrs.get("id") for _, attrs in report.elements}
    links = [attrs["href"] for tag, attrs in report.elements if tag == "a"]
    assert links == ["#adapter-1", "#adapter-2", "#adapter-3"]
    assert {link[1:] for link in links} <= ids
    assert "3 adapters compared" in report.said


def test_a_kind_is_the_shortest_end_that_says_enough():
    found = kinds(moe_audit().layers)
    assert found["net.0.attn1.to_q"] == "attn1.to_q"
    assert found["net.2.attn2.to_q"] == "attn2.to_q"
    assert found["net.1.experts.up[1]"] == "up"
    assert found["lm_head"] == "lm_head"


@pytest.mark.parametrize("blocks", [42, 400], ids=["lines", "bands"])
def test_a_large_adapter_stays_below_the_size_limit(blocks):
    audit = make_audit(blocks=blocks, modules=LLAMA, rank=64)
    text = render([audit], now=NOW)
    assert len(text.encode()) < LIBRARY_BYTES + 2_500_000


def test_an_adapter_of_many_experts_says_how_many_rows_it_left_out():
    many = [Module(path=f"e{i}", type="mlp", shape=(8, 8)) for i in range(400)]
    text = render([make_audit(blocks=4, modules=many, rank=2, with_base=False)], now=NOW)
    assert "100 more are in" in text
    assert text.count("<tr>") < 1700


def test_without_the_chart_library_the_error_names_the_extra(pytestconfig):
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); sys.modules['vl_convert'] = None\n"
        "from datetime import UTC, datetime\n"
        "from factories_audits import make_audit\n"
        "from gradience.audit.html import render\n"
        "from gradience.errors import MissingExtraError\n"
        "try: render([make_audit(blocks=1)], now=datetime.now(UTC))\n"
        "except MissingExtraError as error: print(error.remedy)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(pytestconfig.rootpath / "tests")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.strip() == 'pip install "gradience[html]"', done.stderr


def test_a_real_browser_draws_every_chart_on_a_light_desk(tmp_path):
    check_on_desk(tmp_path, page("broken"))


def test_a_real_browser_draws_every_chart_on_a_dark_phone(tmp_path):
    check_on_phone(tmp_path, page("several"))
