"""The report leads with the answer, says the same in every form, and draws its charts offline."""

import subprocess
import sys
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
from factories_audits import HOSTILE
from factories_worlds import CLAIM, CONTROLS, NOW, Made, ladder, make_results
from gradience.bench.records import Failure, Variant
from gradience.bench.report.html import render
from gradience.bench.report.markdown import markdown
from gradience.bench.report.page import full_page, page
from gradience.bench.report.rows import claim_sentence, rows
from gradience.bench.report.write import write
from gradience.bench.verdict import words
from gradience.bench.verdict.judge import judge
from gradience.cli.render import fitting
from gradience.page import Table, Text

LADDERS = (
    *ladder(losses={16: 0.0, 8: 0.0, 4: 0.06}),
    *ladder("retrain", {16: 0.0, 8: 0.03}),
    *ladder("heal", {16: 0.05}),
)


def hostile_variants():
    name = f"truncate-{HOSTILE}"
    return (
        Made(variant=Variant(name=name, action="truncate", ladder=HOSTILE, rank=8), parts=0.25),
    )


def report_of(kind):
    seeds, options = (0, 1, 2, 3), {}
    made: tuple[Made, ...] = LADDERS
    failures: list[Failure] = []
    if kind == "one seed":
        seeds = (0,)
    if kind == "losses":
        options = {"binary": False, "metric": "negative log-likelihood per token"}
    if kind == "clusters":
        options = {"clusters": 80}
    if kind == "no ladders":
        made = ()
    if kind == "hostile":
        made = hostile_variants()
        options = {"metric": HOSTILE, "name": HOSTILE}
    if kind == "troubled":
        options = {"still_falling": (1,), "before": 0.99}
        failures = [
            Failure(trial="x" * 20, variant="heal-r2", seed=3, message="<b>no memory", log="l")
        ]
    results = make_results(made=(*made, *CONTROLS), seeds=seeds, items=1200, **options)
    if kind == "troubled":
        results = [r for r in results if r.trial.spec.variant.action != "random"]
    return judge(
        name=HOSTILE if kind == "hostile" else "minilm on sst2",
        claim=CLAIM,
        results=results,
        failures=failures,
        evicted=[results[0].trial.id] if kind == "troubled" else (),
    )


KINDS = ("plain", "one seed", "losses", "clusters", "no ladders", "hostile", "troubled")


@cache
def made(kind):
    return report_of(kind)


@cache
def html(kind):
    pytest.importorskip("vl_convert", reason="the page needs gradience[html]")
    return Report(render(made(kind), now=NOW))


every = pytest.mark.parametrize("kind", KINDS)


def texts(found):
    return [part for part in found if isinstance(part, Text)]


def tables(found):
    return {part.title: part for part in found if isinstance(part, Table)}


def test_the_page_leads_with_the_smallest_safe_step_of_every_ladder():
    title, heal, retrain, truncate, *_ = texts(page(made("plain")))
    assert title.text == "minilm on sst2"
    assert heal.text.startswith("heal: nothing is SAFE; heal-r16 is NOT SAFE")
    assert heal.tone == "bad"
    assert retrain.text.startswith("retrain: retrain-r16 is the smallest that is SAFE: rank 16")
    assert truncate.text.startswith("truncate: truncate-r8 is the smallest that is SAFE: rank 8")
    assert "25% of the probe's 1.18 MB" in truncate.text
    assert truncate.tone == "good"


def test_what_safe_means_is_not_said_as_if_something_were_safe():
    assert claim_sentence(made("one seed")).startswith("SAFE means: a loss of 2.5 points")


def test_the_level_is_said_to_be_of_all_ladders_together():
    alone = judge(name="one", claim=CLAIM, results=make_results(items=300))
    assert "at a one-sided level of 0.05, by" in claim_sentence(alone)
    assert "at a one-sided level of 0.05 over all 3 ladders, by" in claim_sentence(made("plain"))


@pytest.mark.parametrize(
    ("p", "shown"), [(0.05, "0.05"), (0.99, "0.99"), (0.9961, ">0.99"), (1.0, "1")]
)
def test_a_p_value_is_not_rounded_up_to_certainty(p, shown):
    assert words.p_value(p) == shown


def test_the_terminal_gives_reasons_for_what_is_not_safe_and_the_files_for_all():
    report = made("plain")
    assert {v.decision for v in report.verdicts} == {"SAFE", "NOT SAFE"}
    for full in (False, True):
        found = full_page(report) if full else page(report)
        said = [t.text for t in texts(found)]
        for v in report.verdicts:
            reason = f"{v.variant}: {v.decision}. {v.reason}"
            assert (reason in said) == (full or v.decision != "SAFE")


def test_troubles_stand_above_the_verdicts():
    found = page(made("troubled"))
    first_table = next(i for i, part in enumerate(found) if isinstance(part, Table))
    above = " ".join(part.text for part in found[:first_table] if isinstance(part, Text))
    for trouble in ("control-random failed", "undertrained", "1 trial failed", "not better than"):
        assert trouble in above
    assert "nothing is SAFE" in above


def test_tables_keep_the_decision_on_eighty_columns():
    for table in tables(page(made("plain"))).values():
        shown, _ = fitting(table, 80)
        assert set(table.head[:2]) <= set(shown.head)


@every
def test_markdown_holds_every_number_and_no_markup_of_others(kind):
    text = markdown(full_page(made(kind)))
    assert text.replace("\\<", "").count("<") == 0
    for row in text.splitlines():
        if row.startswith("|"):
            cells = row.replace("\\|", "").count("|")
            assert cells >= 3
    for verdict in made(kind).verdicts:
        assert verdict.decision in text
    for result in made(kind).results:
        assert result.trial.id in text
        assert result.adapter.fingerprint in text


@every
def test_the_html_is_balanced_and_asks_the_network_for_nothing(kind):
    check_offline(html(kind))
    check_policy(html(kind))
    check_blocks(html(kind))


@every
def test_every_chart_compiles_without_a_warning(kind, capfd):
    compile_specs(html(kind))
    out, err = capfd.readouterr()
    assert out + err == ""


def test_hostile_names_are_text_and_nothing_else():
    report = html("hostile")
    assert not any(tag == "img" or "onerror" in attrs for tag, attrs in report.elements)
    assert HOSTILE in "".join(report.words)
    for spec in report.specs:
        assert not any("onerror" in text for text in strings(spec))


def test_the_html_says_what_the_terminal_says():
    said = html("plain").said
    for line in texts(page(made("plain")))[:4]:
        assert line.text in said
    for verdict in made("plain").verdicts:
        assert verdict.reason in said


def test_a_real_browser_draws_every_chart_on_a_light_desk(tmp_path):
    check_on_desk(tmp_path, html("plain"), column=2)


def test_a_real_browser_draws_every_chart_on_a_dark_phone(tmp_path):
    check_on_phone(tmp_path, html("troubled"), column=2)


def test_three_files_are_written(tmp_path):
    pytest.importorskip("vl_convert", reason="the page needs gradience[html]")
    written = write(made("plain"), tmp_path, now=NOW)
    assert [p.name for p in written.paths] == ["bench.json", "bench.md", "bench.html"]
    assert written.missing == ""


def test_without_the_chart_library_json_and_markdown_are_written_and_an_old_page_goes(
    tmp_path, pytestconfig
):
    (tmp_path / "bench.html").write_text("of an earlier run")
    program = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); sys.modules['vl_convert'] = None\n"
        "from factories_worlds import CLAIM, NOW, make_results\n"
        "from gradience.bench.report.write import write\n"
        "from gradience.bench.verdict.judge import judge\n"
        "report = judge(name='w', claim=CLAIM, results=make_results(items=50, seeds=(0, 1)))\n"
        "print(write(report, pathlib.Path(sys.argv[2]), now=NOW).missing)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(pytestconfig.rootpath / "tests"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert 'pip install "gradience[html]"' in done.stdout, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bench.json", "bench.md"]


def test_a_report_without_a_probe_is_still_a_page():
    results = [r for r in make_results(items=50) if r.trial.spec.variant.name != "probe"]
    report = judge(name="w", claim=CLAIM, results=results)
    assert "No variant could be judged." in [t.text for t in texts(page(report))]
    assert msgspec.json.encode(report)


@pytest.mark.parametrize("per_number", [4, 2, None])
def test_int8_is_counted_by_what_its_file_holds(per_number):
    """Whatever the numbers of the file are, int8 would be a byte for each, and its scales."""
    results = []
    for result in make_results(items=60):
        adapter = result.adapter
        if result.trial.spec.variant.action == "int8":
            head, width = 2_000, per_number or 4  # None: a result of an earlier release
            adapter = msgspec.structs.replace(
                adapter,
                nbytes=head + width * adapter.parameters,
                factor_bytes=adapter.parameters + 512,
                factor_bytes_on_disk=per_number and width * adapter.parameters,
            )
        results.append(msgspec.structs.replace(result, adapter=adapter))
    report = judge(name="world", claim=CLAIM, results=results)
    [row] = [row for row in rows(report) if row.name == "control-int8"]
    assert row.nbytes == 2_000 + row.parameters + 512
    for text in (markdown(full_page(report)), render(report, now=NOW)):
        assert "no format of adapters holds that" in " ".join(text.split())
