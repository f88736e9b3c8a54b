"""The report is one file that asks nothing of the network, trusts no name, and draws its charts."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from html.parser import HTMLParser

import msgspec
import pytest

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

vl_convert = pytest.importorskip("vl_convert", reason="the report needs gradience[html]")

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIBRARY_BYTES = 900_000
ADDRESSES = {"src", "href", "action", "srcset", "data", "poster", "background", "formaction"}
VOID = {"meta", "wbr", "br", "img", "link", "input"}


class Report(HTMLParser):
    """What a browser would see: elements, attributes, words, scripts and tables."""

    def __init__(self, text):
        super().__init__()
        self.source = text
        self.elements, self.words, self.scripts, self.styles = [], [], [], []
        self.rows, self.stack = [], []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append([dict(attrs), ""])
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        where = self.stack[-1] if self.stack else ""
        if where == "script":
            self.scripts.append((self.elements[-1][1].get("type"), data))
        elif where == "style":
            self.styles.append(data)
        else:
            self.words.append(data)
            if "tbody" in self.stack or "thead" in self.stack:
                self.rows[-1][-1][1] += data if self.rows and self.rows[-1] else ""

    @property
    def said(self):
        return " ".join("".join(self.words).split())

    @property
    def specs(self):
        return [json.loads(data) for kind, data in self.scripts if kind == "application/json"]


def refuse_constant(name):
    raise AssertionError(f"{name} in JSON")


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
    report = page(name)
    for tag, attributes in report.elements:
        assert tag not in {"link", "iframe", "object", "embed", "base", "img"}
        for attribute in ADDRESSES & set(attributes):
            assert attributes[attribute].startswith("#"), (tag, attributes)
    style = "".join(report.styles)
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_names_every_script_and_allows_no_address():
    report = page("healthy")
    policy = next(a["content"] for t, a in report.elements if a.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "http" not in policy
    code = [data for kind, data in report.scripts if kind is None]
    assert len(code) == 2
    for data in code:
        digest = base64.b64encode(hashlib.sha256(data.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


@every
def test_every_spec_compiles_without_a_warning(name, capfd):
    for spec in page(name).specs:
        assert vl_convert.vegalite_to_vega(spec, vl_version="6.4", show_warnings=True)
    out, err = capfd.readouterr()
    assert out + err == ""


@every
def test_no_spec_holds_nan_or_leaves_its_block(name):
    for kind, data in page(name).scripts:
        if kind == "application/json":
            json.loads(data, parse_constant=refuse_constant)
            assert data.isascii()
            assert not set("<>&") & set(data)


def test_hostile_names_are_text_and_nothing_else():
    report = page("hostile")
    assert not any(tag == "img" or "onerror" in attrs for tag, attrs in report.elements)
    assert HOSTILE in "".join(report.words)
    assert len([1 for kind, _ in report.scripts if kind is None]) == 2
    values = [row for spec in report.specs for row in spec.get("data", {}).get("values", ())]
    assert any(HOSTILE in str(row.get("m")) for row in values)


def test_texts_of_an_adapter_stand_in_data_and_domains_only():
    def strings(node, inside=""):
        if isinstance(node, dict):
            for key, value in node.items():
                if key not in ("data", "domain"):
                    yield from strings(value, key)
        elif isinstance(node, list):
            for value in node:
                yield from strings(value, inside)
        else:
            yield str(node)

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


# A stand-in for a pair of eyes: what a real browser made of the page, read from its DOM.
PROBE = """
<script>
addEventListener("securitypolicyviolation", (e) => {
  document.documentElement.dataset.violations =
    (document.documentElement.dataset.violations || "") + e.violatedDirective + " ";
});
const wait = setInterval(() => {
  const root = document.documentElement;
  if (!root.dataset.charts) return;
  clearInterval(wait);
  root.dataset.drawn = document.querySelectorAll('.chart[data-state="drawn"]').length;
  root.dataset.failed = [...document.querySelectorAll('.chart[data-state="failed"]')]
    .map((box) => box.textContent).join("; ");
  root.dataset.marks = document.querySelectorAll(".chart canvas, .chart svg").length;
  root.dataset.wide = root.scrollWidth;
  root.dataset.window = innerWidth;
  root.dataset.page = getComputedStyle(document.body).backgroundColor;
  root.dataset.clipped = [...document.querySelectorAll(".chart")]
    .filter((box) => box.firstElementChild.scrollWidth > box.clientWidth + 1).length;
  const numbers = [...document.querySelectorAll("table.sortable")].at(-1);
  numbers.tHead.rows[0].cells[6].querySelector("button").click();
  root.dataset.sorted = [...numbers.tBodies[0].rows].map((r) => r.cells[6].dataset.v).join(" ");
  parent.postMessage({...root.dataset}, "*");
}, 30);
</script>
"""

PHONE = """<!doctype html><html><body>
<iframe src="inner.html" width="390" height="844" style="border:0"></iframe>
<script>
addEventListener("message", (e) => Object.assign(document.documentElement.dataset, e.data));
</script></body></html>
"""


def browse(path, *, dark, width):
    """The attributes that the probe left on the root element of the page, as Chromium has it."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("there is no Chromium here")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={path.parent / 'profile'}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        f"--window-size={width},900",
        "--virtual-time-budget=20000",
        "--dump-dom",
    ]
    done = subprocess.run(
        [browser, *options, path.as_uri()],
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    opening = re.search(r"<html[^>]*>", done.stdout)
    assert opening is not None
    return dict(re.findall(r'data-(\w+)="([^"]*)"', opening[0]))


def with_probe(text):
    """The page with the probe in it, which its policy is made to allow."""
    policy = re.search(r"script-src [^;]*;", text)
    assert policy is not None
    # A digest switches 'unsafe-inline' off, so a nonce lets the probe in beside them.
    probe = PROBE.replace("<script>", '<script nonce="probe">')
    allowed = policy[0].replace("script-src", "script-src 'nonce-probe'")
    return text.replace(policy[0], allowed).replace("<body>", f"<body>{probe}", 1)


def check_drawn(seen, report):
    assert seen["failed"] == ""
    assert int(seen["drawn"]) == int(seen["marks"]) == len(report.specs) > 3
    assert "violations" not in seen
    assert seen["clipped"] == "0"
    assert int(seen["wide"]) <= int(seen["window"])
    energies = [float(v) for v in seen["sorted"].split() if v != "undefined"]
    assert energies == sorted(energies, reverse=True)
    assert energies


def test_a_real_browser_draws_every_chart_on_a_light_desk(tmp_path):
    path = tmp_path / "report.html"
    path.write_text(with_probe(page("broken").source), encoding="utf-8")
    seen = browse(path, dark=False, width=1280)
    assert seen["charts"] == "light"
    assert brightness(seen["page"]) > 230
    check_drawn(seen, page("broken"))


def test_a_real_browser_draws_every_chart_on_a_dark_phone(tmp_path):
    """Chromium's own window is never narrower than 500 px, so the page lies in a frame of 390."""
    (tmp_path / "inner.html").write_text(with_probe(page("several").source), encoding="utf-8")
    path = tmp_path / "phone.html"
    path.write_text(PHONE, encoding="utf-8")
    seen = browse(path, dark=True, width=800)
    assert seen["window"] == "390"
    assert seen["charts"] == "dark"
    assert brightness(seen["page"]) < 60
    check_drawn(seen, page("several"))


def brightness(color):
    """The red of `rgb(r, g, b)`."""
    return int(re.findall(r"\d+", color)[0])
