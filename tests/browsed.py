"""What a browser makes of a report: its elements parsed, and its charts as Chromium draws them."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

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
  numbers.tHead.rows[0].cells[COLUMN].querySelector("button").click();
  const values = [...numbers.tBodies[0].rows].map((r) => r.cells[COLUMN].dataset.v);
  root.dataset.sorted = values.join(" ");
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


def with_probe(text, column):
    """The page with the probe in it, which its policy is made to allow; it sorts by a column."""
    policy = re.search(r"script-src [^;]*;", text)
    assert policy is not None
    # A digest switches 'unsafe-inline' off, so a nonce lets the probe in beside them.
    probe = PROBE.replace("<script>", '<script nonce="probe">').replace("COLUMN", str(column))
    allowed = policy[0].replace("script-src", "script-src 'nonce-probe'")
    return text.replace(policy[0], allowed).replace("<body>", f"<body>{probe}", 1)


def check_offline(report):
    """Balanced markup that names no address."""
    for tag, attributes in report.elements:
        assert tag not in {"link", "iframe", "object", "embed", "base", "img"}
        for attribute in ADDRESSES & set(attributes):
            assert attributes[attribute].startswith("#"), (tag, attributes)
    style = "".join(report.styles)
    assert "url(" not in style
    assert "@import" not in style


def check_policy(report):
    """Only the two scripts of the page may run."""
    policy = next(a["content"] for t, a in report.elements if a.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "http" not in policy
    code = [data for kind, data in report.scripts if kind is None]
    assert len(code) == 2
    for data in code:
        digest = base64.b64encode(hashlib.sha256(data.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def compile_specs(report):
    """Every chart as Vega-Lite compiles it."""
    import vl_convert  # noqa: PLC0415 - an extra

    for spec in report.specs:
        assert vl_convert.vegalite_to_vega(spec, vl_version="6.4", show_warnings=True)


def check_blocks(report):
    """JSON that holds no NaN and cannot leave its block."""
    for kind, data in report.scripts:
        if kind == "application/json":
            json.loads(data, parse_constant=refuse_constant)
            assert data.isascii()
            assert not set("<>&") & set(data)


def refuse_constant(name):
    raise AssertionError(f"{name} in JSON")


def strings(node, inside=""):
    """Texts of a specification that stand neither in data nor in a domain."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key not in ("data", "domain"):
                yield from strings(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from strings(value, inside)
    else:
        yield str(node)


def check_on_desk(directory, report, *, column=6):
    """Draw it light, 1280 pixels wide."""
    path = directory / "report.html"
    path.write_text(with_probe(report.source, column), encoding="utf-8")
    seen = browse(path, dark=False, width=1280)
    assert seen["charts"] == "light"
    assert brightness(seen["page"]) > 230
    check_drawn(seen, report)


def check_on_phone(directory, report, *, column=6):
    """Draw it dark, 390 pixels wide.

    Chromium's own window is never narrower than 500 px, so the page lies in a frame of 390.
    """
    (directory / "inner.html").write_text(with_probe(report.source, column), encoding="utf-8")
    path = directory / "phone.html"
    path.write_text(PHONE, encoding="utf-8")
    seen = browse(path, dark=True, width=800)
    assert seen["window"] == "390"
    assert seen["charts"] == "dark"
    assert brightness(seen["page"]) < 60
    check_drawn(seen, report)


def check_drawn(seen, report):
    assert seen["failed"] == ""
    assert int(seen["drawn"]) == int(seen["marks"]) == len(report.specs) > 3
    assert "violations" not in seen
    assert seen["clipped"] == "0"
    assert int(seen["wide"]) <= int(seen["window"])
    values = [float(v) for v in seen["sorted"].split() if v != "undefined"]
    assert values == sorted(values, reverse=True)
    assert values


def brightness(color):
    """The red of `rgb(r, g, b)`."""
    return int(re.findall(r"\d+", color)[0])
