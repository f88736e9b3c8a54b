"""A report is believed when it can be computed again, and each way to tamper with one is seen."""

import json
import shutil
import subprocess
import sys

import msgspec
import pytest
from click.testing import CliRunner

from factories_worlds import (
    CLAIM,
    CONTROLS,
    NOW,
    ladder,
    make_results,
    replaced,
    write_bench,
    write_results,
)
from gradience import artifacts
from gradience.bench.records import REPORT_SCHEMA, BenchReport
from gradience.bench.report.verify import read_report, verify
from gradience.bench.settings import ClaimSettings
from gradience.cli.bench_verify import verify as command
from gradience.errors import ArtifactError

MADE = (*ladder(losses={16: 0.0, 8: 0.0}), *CONTROLS)


@pytest.fixture
def results():
    return make_results(made=MADE, seeds=(0, 1, 2), items=400)


@pytest.fixture
def bench(tmp_path, results):
    return write_bench(tmp_path / "out", results)


def rewrite(bench, **changed):
    report = msgspec.structs.replace(read_report(bench), **changed)
    (bench / "bench.json").write_bytes(artifacts.encode(REPORT_SCHEMA, report, now=NOW))
    return report


def of(results, name, seed=0):
    return next(
        r for r in results if r.trial.spec.variant.name == name and r.trial.spec.seed == seed
    )


def test_an_untouched_report_holds(bench):
    found = verify(bench)
    assert found.differences == ()
    assert found.trials == 21
    assert set(found.decisions) == {"truncate-r16", "truncate-r8"}


def test_one_flipped_score_is_named(bench, results):
    one = of(results, "truncate-r8", 1)
    scores = list(one.items.scores)
    scores[7] = 1 - scores[7]
    write_results(bench, [replaced(one, scores)])
    differences = verify(bench).differences
    assert f"the scores of trial {one.trial.id} (truncate-r8 seed 1) are not" in differences[0]
    assert any(d.startswith("truncate-r8, computed again: difference ") for d in differences)


def test_two_scores_that_change_places_are_named_although_no_mean_moves(bench, results):
    one = of(results, "truncate-r8")
    scores = list(one.items.scores)
    a, b = scores.index(0.0), scores.index(1.0)
    scores[a], scores[b] = scores[b], scores[a]
    write_results(bench, [replaced(one, scores)])
    assert any(one.trial.id in d and "scores" in d for d in verify(bench).differences)


def test_a_swapped_file_is_named(bench, results):
    one, other = of(results, "truncate-r8"), of(results, "truncate-r16")
    trials = bench / "trials"
    shutil.copy(trials / other.trial.id / "result.json", trials / one.trial.id / "result.json")
    [first, *_] = verify(bench).differences
    assert first == f"trials/{one.trial.id}/result.json holds trial {other.trial.id}"


def test_a_file_under_a_false_id_is_named(bench, results):
    one, other = of(results, "truncate-r8"), of(results, "truncate-r16")
    trial = msgspec.structs.replace(other.trial, id=one.trial.id)
    write_results(bench, [msgspec.structs.replace(other, trial=trial)])
    differences = verify(bench).differences
    assert any("its spec does not make the id" in d for d in differences)


def test_a_margin_that_was_changed_afterwards_is_named(bench):
    rewrite(bench, claim=ClaimSettings(margin=0.05))
    differences = verify(bench).differences
    assert "claim.margin is 0.05 in bench.json and 0.025 in settings.json" in differences
    assert any("p_value" in d for d in differences)


def test_a_margin_changed_in_both_places_still_contradicts_the_numbers(bench):
    rewrite(bench, claim=ClaimSettings(margin=0.05))
    text = (bench / "settings.json").read_text()
    (bench / "settings.json").write_text(text.replace('"margin": 0.025', '"margin": 0.05'))
    assert any("p_value" in d for d in verify(bench).differences)


def test_a_decision_that_was_changed_is_named(bench):
    report = read_report(bench)
    verdicts = tuple(msgspec.structs.replace(v, decision="NOT SAFE") for v in report.verdicts)
    rewrite(bench, verdicts=verdicts)
    assert any(
        d == f"{v.variant}, computed again: decision {v.decision} (bench.json: NOT SAFE)"
        for d in verify(bench).differences
        for v in report.verdicts
    )


def test_a_seed_that_was_left_out_is_named(bench, results):
    report = read_report(bench)
    kept = [r for r in results if r.trial.spec.seed != 2]
    from gradience.bench.verdict.judge import judge  # noqa: PLC0415 - only here

    rewritten = judge(name=report.name, claim=CLAIM, results=kept)
    (bench / "bench.json").write_bytes(artifacts.encode(REPORT_SCHEMA, rewritten, now=NOW))
    differences = verify(bench).differences
    assert len(differences) == 7
    assert all(d.endswith("is not in bench.json") for d in differences)
    assert any("(truncate-r8 seed 2)" in d for d in differences)


def test_a_note_that_was_removed_is_named(tmp_path):
    bench = write_bench(tmp_path, make_results(made=MADE, items=400, still_falling=(1,)))
    rewrite(bench, notes=())
    assert any("leaves out: The probe of seed 1" in d for d in verify(bench).differences)


def test_a_missing_and_a_damaged_file_are_named(bench, results):
    gone, damaged = of(results, "truncate-r8"), of(results, "truncate-r16")
    (bench / "trials" / gone.trial.id / "result.json").unlink()
    (bench / "trials" / damaged.trial.id / "result.json").write_text("{")
    differences = verify(bench).differences
    assert any(f"trials/{gone.trial.id}/result.json cannot be read" in d for d in differences)
    assert any(f"trials/{damaged.trial.id}/result.json is not a readable" in d for d in differences)


def test_results_of_other_settings_beside_it_are_a_note(bench):
    other = make_results(made=(), seeds=(9,), items=50, spec={"base": "other"})
    write_results(bench, other)
    found = verify(bench)
    assert found.differences == ()
    assert "1 results of other settings" in found.notes[0]


def test_without_settings_the_claim_was_held_against_nothing_and_it_says_so(bench):
    (bench / "settings.json").unlink()
    found = verify(bench)
    assert found.differences == ()
    assert "The claim was not held against settings.json" in found.notes[0]


def test_a_directory_without_a_report_is_an_error(tmp_path):
    with pytest.raises(ArtifactError, match=r"bench\.json cannot be read"):
        verify(tmp_path)


def test_the_command_exits_with_one_and_names_what_differs(bench, results):
    run = CliRunner()
    good = run.invoke(command, [str(bench)], standalone_mode=False)
    assert (good.return_value, good.exception) == (0, None)
    assert "bench.json holds" in good.output
    one = of(results, "probe")
    write_results(bench, [replaced(one, [1 - s for s in one.items.scores])])
    bad = run.invoke(command, [str(bench), "--json"], standalone_mode=False)
    assert bad.return_value == 1
    content = json.loads(bad.stdout)["content"]
    assert one.trial.id in "".join(content["differences"])


def test_it_needs_neither_torch_nor_the_network(bench):
    program = (
        "import sys, pathlib\n"
        "from gradience.bench.report.verify import verify\n"
        "assert not verify(pathlib.Path(sys.argv[1])).differences\n"
        "print([m for m in ('torch', 'transformers', 'click', 'rich') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(bench)], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_without_scipy_the_error_names_the_extra(bench):
    program = (
        "import sys, pathlib; sys.modules['scipy'] = None\n"
        "from gradience.bench.report.verify import verify\n"
        "from gradience.errors import MissingExtraError\n"
        "try: verify(pathlib.Path(sys.argv[1]))\n"
        "except MissingExtraError as error: print(error.remedy)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(bench)], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "pip install 'gradience[stats]'", done.stderr


def test_the_artifact_reads_back_as_it_was_written(bench):
    data = (bench / "bench.json").read_bytes()
    report = artifacts.decode(data, REPORT_SCHEMA, BenchReport, source="bench.json")
    assert all(result.items.ids == () for result in report.results)
    assert len(report.scores) == len(report.results)
