"""Runs of one bench become one bench; different benches stand side by side."""

import json

import pytest
from click.testing import CliRunner

from factories_worlds import (
    CONTROLS,
    NOW,
    ladder,
    make_results,
    replaced,
    write_bench,
    write_results,
)
from gradience.bench.ledger import Ledger
from gradience.bench.report.aggregate import aggregate
from gradience.bench.report.judged import judged
from gradience.bench.report.page import page
from gradience.bench.report.side_by_side import page as side_by_side
from gradience.bench.report.verify import verify
from gradience.bench.report.write import write
from gradience.bench.settings import ClaimSettings
from gradience.bench.verdict.judge import judge
from gradience.cli.bench_aggregate import aggregate as command
from gradience.errors import TrialResultError, UsageError
from gradience.page import Table, Text

MADE = (*ladder(losses={16: 0.0, 8: 0.0}), *CONTROLS)


def split(results, *parts):
    return [[r for r in results if r.trial.spec.seed in part] for part in parts]


def test_two_halves_are_judged_as_the_whole(tmp_path):
    results = make_results(made=MADE, seeds=(0, 1, 2, 3), items=400)
    a, b = split(results, (0, 1), (2, 3))
    joined = aggregate([write_bench(tmp_path / "a", a), write_bench(tmp_path / "b", b)])
    whole = judge(name="world", claim=ClaimSettings(margin=0.025), results=results)
    [report] = joined.reports
    assert report.verdicts == whole.verdicts
    assert report.scores == whole.scores
    assert report.notes == (*whole.notes, "Joined from 2 directories.")


def test_the_same_run_twice_adds_no_seeds(tmp_path):
    results = make_results(made=MADE, seeds=(0, 1, 2), items=400)
    a, b = write_bench(tmp_path / "a", results), write_bench(tmp_path / "b", results)
    assert [v.seeds for v in aggregate([a, b]).reports[0].verdicts] == [3, 3]


def test_machines_with_other_versions_are_joined_and_it_is_said(tmp_path):
    here = make_results(made=MADE, seeds=(0, 1), items=400)
    there = make_results(
        made=MADE, seeds=(2, 3), items=400, spec={"versions": {"torch": "2.14.0"}, "device": "cuda"}
    )
    joined = aggregate([write_bench(tmp_path / "a", here), write_bench(tmp_path / "b", there)])
    [report] = joined.reports
    assert {v.seeds for v in report.verdicts} == {4}
    assert report.versions["torch"] == "2.13.0, 2.14.0"
    assert any("2 environments" in note for note in report.notes)


def test_one_seed_on_two_machines_counts_once(tmp_path):
    here = make_results(made=MADE, seeds=(0, 1), items=400)
    again = make_results(made=MADE, seeds=(1, 2), items=400, spec={"device": "cuda"}, world=0)
    joined = aggregate([write_bench(tmp_path / "a", here), write_bench(tmp_path / "b", again)])
    [report] = joined.reports
    assert {v.seeds for v in report.verdicts} == {3}
    assert any(note.startswith("Seed 1 ran in") for note in report.notes)


def test_ranks_of_several_runs_make_one_ladder(tmp_path):
    both = make_results(made=(*ladder(losses={16: 0.0, 8: 0.0, 4: 0.0}), *CONTROLS), items=400)
    few = make_results(made=(*ladder(losses={16: 0.0, 4: 0.0}), *CONTROLS), items=400)
    first = [r for r in both if r.trial.spec.seed < 3]
    second = [r for r in few if r.trial.spec.seed >= 3]
    joined = aggregate([write_bench(tmp_path / "a", first), write_bench(tmp_path / "b", second)])
    [report] = joined.reports
    assert [(v.variant, v.step, v.seeds) for v in report.verdicts] == [
        ("truncate-r16", 0, 5),
        ("truncate-r8", 1, 3),
        ("truncate-r4", 2, 5),
    ]
    assert any("truncate-r8 has no result for seeds 3, 4" in note for note in report.notes)


def test_different_benches_stand_side_by_side(tmp_path):
    one = write_bench(tmp_path / "a", make_results(made=MADE, items=400), name="first")
    other = make_results(made=MADE, items=400, spec={"base": "f" * 16})
    two = write_bench(tmp_path / "b", other, name="second")
    joined = aggregate([one, two])
    assert [report.name for report in joined.reports] == ["first", "second"]
    wide = CliRunner(env={"COLUMNS": "160"})
    shown = wide.invoke(command, [str(one), str(two)], standalone_mode=False)
    assert (shown.return_value, shown.exception) == (0, None)
    assert "first" in shown.output
    assert "second" in shown.output
    assert "smallest" in shown.output


def test_two_claims_on_one_bench_are_refused(tmp_path):
    results = make_results(made=MADE, items=400)
    a, b = split(results, (0, 1, 2), (3, 4))
    one = write_bench(tmp_path / "a", a)
    two = write_bench(tmp_path / "b", b, claim=ClaimSettings(margin=0.05))
    with pytest.raises(UsageError, match=r"different claims: margin 0\.025.* and margin 0\.05"):
        aggregate([one, two])


def test_a_directory_without_results_is_refused(tmp_path):
    results = make_results(made=MADE, seeds=(0, 1), items=100)
    bench = write_bench(tmp_path, results)
    for path in bench.glob("trials/*/result.json"):
        path.unlink()
    with pytest.raises(UsageError, match="holds no finished probe"):
        aggregate([bench])


def test_other_test_items_cannot_be_joined(tmp_path):
    one = make_results(made=MADE, seeds=(0, 1), items=100)
    two = make_results(made=MADE, seeds=(2, 3), items=90)
    with pytest.raises(TrialResultError, match="item 91 of trial"):
        aggregate([write_bench(tmp_path / "a", one), write_bench(tmp_path / "b", two)])


def test_the_joined_report_is_written_where_it_was_asked_for(tmp_path):
    a, b = split(make_results(made=MADE, seeds=(0, 1, 2, 3), items=200), (0, 1), (2, 3))
    one, two = write_bench(tmp_path / "a", a), write_bench(tmp_path / "b", b)
    before = (one / "bench.json").read_bytes()
    run = CliRunner()
    words = [str(one), str(two), "--json", "--output-dir", str(tmp_path / "both")]
    done = run.invoke(command, words, standalone_mode=False)
    assert (done.return_value, done.exception) == (0, None)
    content = json.loads(done.stdout)["content"]
    assert content["directories"] == [[str(one), str(two)]]
    assert (tmp_path / "both" / "bench.md").read_text().startswith("# world")
    assert (one / "bench.json").read_bytes() == before
    assert verify(tmp_path / "both").differences == ()
    refused = run.invoke(command, [str(one), "--output-dir", str(one)], standalone_mode=False)
    assert isinstance(refused.exception, UsageError)


def test_a_score_that_one_machine_saw_otherwise_is_not_mixed_in(tmp_path):
    results = make_results(made=MADE, seeds=(0, 1, 2), items=200)
    probe = results[0]
    changed = [replaced(probe, [1 - s for s in probe.items.scores]), *results[1:]]
    one, two = write_bench(tmp_path / "a", results), write_bench(tmp_path / "b", changed)
    [report] = aggregate([one, two]).reports
    assert any("Seed 0 ran in" in note for note in report.notes)
    assert {v.seeds for v in report.verdicts} == {3}


def unfinished(root, *names):
    """Take the results of these trials away, as if they had not run."""
    for trial in Ledger(root).bench().trials:
        if trial.name in names:
            Ledger(root).paths(trial.id).result.unlink()


def test_nothing_is_judged_and_no_verdict_is_hinted_at_while_trials_of_the_plan_wait(tmp_path):
    results = make_results(made=MADE, seeds=(0, 1, 2), items=1500)
    root = write_bench(tmp_path / "a", results)
    assert {v.decision for v in aggregate([root]).reports[0].verdicts} == {"SAFE"}
    unfinished(root, "truncate-r16 seed 2")
    [report] = aggregate([root]).reports
    assert {(v.decision, v.reason) for v in report.verdicts} == {
        ("UNDERPOWERED", "Not judged before the whole plan has run: 1 trial to go.")
    }
    assert report.notes[0].startswith("Not run yet: 1 trial of the plan (truncate-r16 seed 2). ")
    assert "would be a look of its own" in report.notes[0]
    texts = [part.text for part in page(report) if isinstance(part, Text)]
    assert "truncate: not judged yet, 1 trial to go." in texts
    other = write_bench(
        tmp_path / "b", make_results(made=MADE, items=400, spec={"base": "f" * 16}), name="other"
    )
    [table] = [part for part in side_by_side(aggregate([root, other])) if isinstance(part, Table)]
    assert "not judged" in table.rows[0]
    assert judged(root).verdicts == report.verdicts
    write(judged(root), root, now=NOW)
    assert verify(root).differences == ()


def test_a_trial_that_another_machine_did_does_not_wait(tmp_path):
    here = make_results(made=MADE, seeds=(0, 1, 2), items=400)
    there = make_results(made=MADE, seeds=(2,), items=400, spec={"device": "cuda"})
    one, two = write_bench(tmp_path / "a", here), write_bench(tmp_path / "b", there)
    unfinished(one, *(r.trial.name for r in here if r.trial.spec.seed == 2))
    [report] = aggregate([one, two]).reports
    assert report.waiting == ()
    assert {v.seeds for v in report.verdicts} == {3}
    unfinished(two, "truncate-r8 seed 2")
    assert aggregate([one, two]).reports[0].waiting == (f"truncate-r8 seed 2 in {one}",)


def test_what_a_failed_probe_takes_along_does_not_wait(tmp_path):
    results = make_results(made=MADE, seeds=(0, 1, 2), items=400)
    root = write_bench(tmp_path / "a", results)
    unfinished(root, *(r.trial.name for r in results if r.trial.spec.seed == 2))
    [probe] = [r.trial for r in results if r.trial.name == "probe seed 2"]
    Ledger(root).write_failure(probe.id, "out of memory", now=NOW)
    [report] = aggregate([root]).reports
    assert report.waiting == ()
    assert {v.seeds for v in report.verdicts} == {2}
    assert len(report.failures) == len([r for r in results if r.trial.spec.seed == 2])


def test_a_joined_report_holds_only_beside_the_runs_that_it_names(tmp_path):
    results = make_results(made=MADE, seeds=(0, 1, 2, 3), items=200)
    a, b = split(results, (0, 1), (2, 3))
    roots = [write_bench(tmp_path / name, half) for name, half in (("a", a), ("b", b))]
    out = tmp_path / "both"
    words = [*map(str, roots), "--output-dir", str(out)]
    CliRunner().invoke(command, words, standalone_mode=False, catch_exceptions=False)
    held = verify(out)
    assert (held.differences, held.trials) == ((), len(results))
    last = b[-1]
    scores = list(last.items.scores)
    scores[0] = 1 - scores[0]
    write_results(roots[1], [replaced(last, scores)])
    told = verify(out).differences
    assert any(d.startswith(f"{roots[1]}: the scores of trial {last.trial.id}") for d in told)
    assert any(d.startswith(f"the scores of trial {last.trial.id}") for d in told)
    (roots[0] / "settings.json").unlink()
    assert any("cannot be joined" in d for d in verify(out).differences)
