"""A run over a plan: only what is not done runs, failures are kept, the budget holds."""

from pathlib import Path

import msgspec
import pytest

from factories_driver import NOW, FakeExecutor, changed, make_project, settings_of
from gradience import artifacts
from gradience.bench.driver.progress import Snapshot
from gradience.bench.ledger import Ledger, State
from gradience.bench.plan.trials import trial_id
from gradience.bench.records import RESULT_SCHEMA, TRIAL_SCHEMA, Bench, Trial, TrialResult
from gradience.bench.report.judged import judged
from gradience.bench.report.judged import lost_trials as failures
from gradience.bench.report.verify import verify
from gradience.bench.report.write import write
from gradience.bench.run import RunOptions, run_bench
from gradience.bench.settings import BenchSettings, ClaimSettings, LadderSettings
from gradience.errors import ArtifactError, StorageError, UsageError

PER_SEED = 1 + 2 + 1 + 4  # the probe, two rungs, a heal, four controls


@pytest.fixture
def settings(tmp_path: Path) -> BenchSettings:
    return settings_of(make_project(tmp_path))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def run(
    settings: BenchSettings, out: Path, executor: FakeExecutor | None = None, **options: object
) -> tuple[Bench, FakeExecutor]:
    executor = executor or FakeExecutor()
    return run_bench(settings, out, RunOptions(executor=executor, **options)), executor


def test_every_trial_runs_once_and_a_second_run_does_nothing(
    settings: BenchSettings, out: Path
) -> None:
    bench, first = run(settings, out)
    assert len(first.started) == len(bench.trials) == 2 * PER_SEED
    assert all(Ledger(out).state(trial.id) is State.DONE for trial in bench.trials)
    again, second = run(settings, out)
    assert second.started == []
    assert again == bench


def test_a_seed_that_is_added_brings_its_own_trials_and_no_others(
    settings: BenchSettings, out: Path
) -> None:
    run(settings, out)
    _, second = run(changed(settings, seeds=(2, 0, 1)), out)
    assert len(second.started) == PER_SEED
    assert all(name.endswith("seed 2") for name in second.started)


def test_a_rank_that_is_added_brings_its_own_trials_and_no_others(
    settings: BenchSettings, out: Path
) -> None:
    run(settings, out)
    more = LadderSettings(action="truncate", ranks=(6, 4, 3, 2))
    bench, second = run(changed(settings, variants=(more, settings.variants[1])), out)
    truncated = {name for name in second.started if name.startswith("truncate")}
    assert truncated == {f"truncate-r{rank} seed {seed}" for rank in (6, 3) for seed in (0, 1)}
    # The random subspace has the size of the top rung, which moved.
    assert set(second.started) - truncated == {"control-random seed 0", "control-random seed 1"}
    steps = {r.trial.spec.variant.name: r.trial.spec.variant.step for r in results(out, bench)}
    assert [steps[f"truncate-r{rank}"] for rank in (6, 4, 3, 2)] == [0, 1, 2, 3]


def results(out: Path, bench: Bench) -> tuple[TrialResult, ...]:
    return Ledger(out).results(bench.trials)


def test_a_ladder_that_gets_another_name_keeps_its_results(
    settings: BenchSettings, out: Path
) -> None:
    run(settings, out)
    renamed = tuple(
        msgspec.structs.replace(ladder, name=f"my-{ladder.action}") for ladder in settings.variants
    )
    bench, second = run(changed(settings, variants=renamed), out)
    assert second.started == []
    assert "my-truncate-r4" in {r.trial.spec.variant.name for r in results(out, bench)}


def test_data_that_moves_keeps_its_results_and_data_that_changes_does_not(
    settings: BenchSettings, out: Path, tmp_path: Path
) -> None:
    run(settings, out)
    (tmp_path / "moved").mkdir()
    moved = (tmp_path / "test.tsv").rename(tmp_path / "moved" / "other_name.tsv")
    task = msgspec.structs.replace(settings.task, test=(str(moved),))
    bench, second = run(changed(settings, task=task), out)
    assert second.started == []
    assert {r.trial.spec.task.test for r in results(out, bench)} == {(str(moved),)}
    moved.write_text(moved.read_text() + "one more\t1\n")
    _, third = run(changed(settings, task=task), out)
    assert len(third.started) == 2 * PER_SEED


def test_a_report_holds_after_its_data_moved(
    settings: BenchSettings, out: Path, tmp_path: Path
) -> None:
    run(settings, out)
    moved = (tmp_path / "train.tsv").rename(tmp_path / "moved.tsv")
    task = msgspec.structs.replace(settings.task, train=(str(moved),))
    run(changed(settings, task=task), out)
    report = judged(out)
    assert report is not None
    write(report, out, now=NOW)
    assert verify(out).differences == ()


def test_a_base_model_with_another_weight_or_config_runs_everything_again(
    settings: BenchSettings, out: Path, tmp_path: Path
) -> None:
    run(settings, out)
    (tmp_path / "model" / "config.json").write_text('{"hidden_act": "relu"}')
    assert len(run(settings, out)[1].started) == 2 * PER_SEED


def test_a_failed_trial_is_kept_and_the_rest_goes_on(settings: BenchSettings, out: Path) -> None:
    bench, first = run(settings, out, FakeExecutor(failing=["truncate-r4 seed 0"]))
    assert len(first.started) == 2 * PER_SEED
    (failure,) = failures(Ledger(out), bench)
    assert (failure.variant, failure.seed) == ("truncate-r4", 0)
    assert failure.message == "the model"
    assert (out / failure.log).read_text().startswith("$ python")
    assert run(settings, out)[1].started == []  # not again unasked
    assert run(settings, out, retry_failed=True)[1].started == ["truncate-r4 seed 0"]
    assert failures(Ledger(out), bench) == ()


def test_what_needs_a_failed_probe_is_named_and_does_not_run(
    settings: BenchSettings, out: Path
) -> None:
    bench, executor = run(settings, out, FakeExecutor(failing=["probe seed 1"]))
    assert len(executor.started) == PER_SEED + 1
    lost = failures(Ledger(out), bench)
    assert len(lost) == PER_SEED
    assert lost[1].message == "it needs probe seed 1, which failed"


def test_a_half_done_trial_is_cleared_before_it_runs_again(
    settings: BenchSettings, out: Path
) -> None:
    def stop(job: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(settings, out, FakeExecutor(on_start=stop))
    trial = Ledger(out).bench().trials[0]
    stale = Ledger(out).paths(trial.id).adapter / "half_written.tmp"
    stale.parent.mkdir()
    stale.touch()
    assert len(run(settings, out)[1].started) == 2 * PER_SEED
    assert not stale.exists()


def test_a_damaged_result_is_refused_with_what_runs_its_trial_again(
    settings: BenchSettings, out: Path
) -> None:
    run(settings, out)
    damaged = next((out / "trials").glob("*/result.json"))
    damaged.write_bytes(b"")
    with pytest.raises(ArtifactError) as caught:
        run(settings, out)
    assert str(damaged) in str(caught.value)
    assert caught.value.remedy == "Delete it, and the same command runs its trial again."
    damaged.unlink()
    assert len(run(settings, out)[1].started) == 1


def test_scratch_is_gone_when_a_trial_is_done(settings: BenchSettings, out: Path) -> None:
    run(settings, out)
    assert list(out.glob("trials/*/work")) == []
    assert list(out.glob("trials/*/progress.json")) == []


def test_two_drivers_never_share_a_directory(settings: BenchSettings, out: Path) -> None:
    inner: list[StorageError] = []

    def second(job: object) -> None:
        if not inner:
            with pytest.raises(StorageError, match="is held by another process") as caught:
                run(settings, out)
            inner.append(caught.value)

    run(settings, out, FakeExecutor(on_start=second))
    assert inner


def test_an_executor_is_closed_whatever_happens(settings: BenchSettings, out: Path) -> None:
    def stop(job: object) -> None:
        raise KeyboardInterrupt

    executor = FakeExecutor(on_start=stop)
    with pytest.raises(KeyboardInterrupt):
        run(settings, out, executor)
    assert executor.closed


def test_snapshots_count_to_the_end(settings: BenchSettings, out: Path) -> None:
    seen: list[Snapshot] = []
    run(settings, out, FakeExecutor(failing=["heal-r2 seed 1"]), watch=seen.append)
    last = seen[-1]
    assert (last.done, last.failed, last.total) == (2 * PER_SEED - 1, 1, 2 * PER_SEED)
    assert last.left == 0.0
    assert any(s.left is not None and s.left > 0 for s in seen)


# The budget.


def size(out: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in [out, *out.rglob("*")])


def test_the_budget_holds_all_the_time_and_records_stay(settings: BenchSettings, out: Path) -> None:
    cap = 4_000_000
    peak = [0]
    executor = FakeExecutor(
        adapter_bytes=300_000, on_start=lambda job: peak.append(size(out)), slots=2
    )
    bench, _ = run(changed(settings, disk_budget=str(cap)), out, executor)
    assert max(*peak, size(out)) <= cap
    assert len(results(out, bench)) == len(bench.trials)
    gone = [trial for trial in bench.trials if Ledger(out).evicted(trial.id)]
    assert gone
    # Controls go before anything that took training.
    assert {trial.spec.variant.name.partition("-")[0] for trial in gone} <= {"control", "truncate"}


def test_a_budget_that_is_too_small_is_refused_with_the_arithmetic(
    settings: BenchSettings, out: Path
) -> None:
    with pytest.raises(StorageError) as caught:
        run(changed(settings, disk_budget="1KB"), out)
    told = str(caught.value)
    assert "probe seed 0 writes about" in told
    assert "of the budget of 1.00 KB are in use" in told


def test_a_trial_that_outgrows_the_budget_is_stopped_and_the_rest_goes_on(
    settings: BenchSettings, out: Path
) -> None:
    executor = FakeExecutor(growing=["heal-r2 seed 0"])
    bench, _ = run(changed(settings, disk_budget="2MB"), out, executor)
    (failure,) = failures(Ledger(out), bench)
    assert failure.variant == "heal-r2"
    assert failure.message.startswith("stopped: it had grown to 3.0")
    assert len(results(out, bench)) == len(bench.trials) - 1
    assert size(out) < 2_000_000


def test_a_retrain_that_is_added_brings_back_the_untrained_adapter(
    settings: BenchSettings, out: Path
) -> None:
    bench, _ = run(settings, out)
    Ledger(out).evict(bench.trials[0].id, "step0", 1, now=NOW)
    more = LadderSettings(action="retrain", ranks=(2,))
    _, second = run(changed(settings, variants=(*settings.variants, more)), out)
    assert second.started == ["probe seed 0", "retrain-r2 seed 0", "retrain-r2 seed 1"]


def test_what_other_software_made_is_not_made_again_under_its_name(
    settings: BenchSettings, out: Path
) -> None:
    run(settings, out)
    made_by_older_code(out)
    for trial in Ledger(out).known().values():
        if trial.spec.variant.name == "probe":
            Ledger(out).evict(trial.id, "adapter", 1, now=NOW)
    more = LadderSettings(action="truncate", ranks=(6, 4, 2))
    with pytest.raises(UsageError, match="other software made it"):
        run(changed(settings, variants=(more, settings.variants[1])), out, accept=("code",))


def test_a_probe_whose_adapter_was_removed_is_made_again_when_it_is_needed(
    settings: BenchSettings, out: Path
) -> None:
    bench, _ = run(settings, out)
    ledger = Ledger(out)
    probe = bench.trials[0]
    ledger.evict(probe.id, "adapter", 1, now=NOW)
    more = LadderSettings(action="truncate", ranks=(6, 4, 2))
    told: list[str] = []
    _, second = run(
        changed(settings, variants=(more, settings.variants[1])), out, notice=told.append
    )
    assert second.started[0] == "probe seed 0"
    assert "truncate-r4 seed 0" not in second.started  # it came out as before
    assert any("is trained again" in sentence for sentence in told)
    assert ledger.evicted(probe.id) is None


def test_a_driver_killed_as_a_probe_came_out_different_leaves_no_pair_of_two_adapters(
    settings: BenchSettings, out: Path
) -> None:
    bench, _ = run(settings, out)
    ledger, probe = Ledger(out), bench.trials[0]
    result = ledger.result(probe)
    assert result is not None
    facts = msgspec.structs.replace(result.adapter, fingerprint="blake3:another")
    old = msgspec.structs.replace(result, adapter=facts)
    # As a killed driver leaves it: the new result is there, and the old one not yet compared.
    ledger.paths(probe.id).old.write_bytes(artifacts.encode(RESULT_SCHEMA, old, now=NOW))
    _, second = run(settings, out)
    assert len(second.started) == PER_SEED - 1
    assert all(name.endswith("seed 0") for name in second.started)
    assert not ledger.paths(probe.id).old.exists()
    _, third = run(settings, out)
    assert third.started == []


def test_a_trial_file_under_another_id_names_no_directory(
    settings: BenchSettings, out: Path
) -> None:
    bench, _ = run(settings, out)
    paths = Ledger(out).paths(bench.trials[0].id)
    moved = msgspec.structs.replace(bench.trials[0], id="../../elsewhere")
    paths.trial.write_bytes(artifacts.encode(TRIAL_SCHEMA, moved, now=NOW))
    assert set(Ledger(out).known()) == {trial.id for trial in bench.trials[1:]}


def test_a_claim_that_is_changed_after_results_is_said_to_be(
    settings: BenchSettings, out: Path
) -> None:
    run(settings, out)
    before = judged(out)
    assert before is not None
    assert not any("claim" in note for note in before.notes)
    run(changed(settings, claim=ClaimSettings(margin=0.1)), out)
    run(changed(settings, claim=ClaimSettings(margin=0.2)), out)
    after = judged(out)
    assert after is not None
    assert after.notes[-1].startswith("The claim was changed after there were results: before, ")
    assert "margin 0.025, level 0.05, power 0.8; margin 0.1, level" in after.notes[-1]


# Other software.


def made_by_older_code(out: Path) -> None:
    """Make every trial of a directory one of older code, under the id that it then had."""
    ledger = Ledger(out)
    ids: dict[str, str] = {}
    for trial in ledger.bench().trials:
        spec = msgspec.structs.replace(trial.spec, code="blake3:older")
        needs = tuple(ids[need] for need in trial.needs)
        ids[trial.id] = trial_id(spec, needs)
        older = Trial(id=ids[trial.id], spec=spec, needs=needs)
        result = msgspec.structs.replace(ledger.result(trial), trial=older)
        ledger.paths(trial.id).directory.rename(ledger.paths(older.id).directory)
        paths = ledger.paths(older.id)
        paths.trial.write_bytes(artifacts.encode(TRIAL_SCHEMA, older, now=NOW))
        paths.result.write_bytes(artifacts.encode(RESULT_SCHEMA, result, now=NOW))


def test_results_of_other_code_are_named_and_used_only_on_demand(
    settings: BenchSettings, out: Path
) -> None:
    run(settings, out)
    made_by_older_code(out)
    bench, accepting = run(changed(settings, seeds=(0, 1, 2)), out, accept=("code",))
    assert len(accepting.started) == PER_SEED  # of the new seed
    assert len(bench.accepted) == 2 * PER_SEED
    assert set(bench.accepted.values()) == {"code of Gradience"}
    assert len(results(out, bench)) == 3 * PER_SEED
    told: list[str] = []
    _, strict = run(settings, out, notice=told.append)
    assert len(strict.started) == 2 * PER_SEED
    assert told[0].startswith(f"{2 * PER_SEED} results here come from other software (code of")
    assert "--accept code uses them" in told[0]


def test_a_variant_is_never_made_from_a_probe_of_another_code_unasked(
    settings: BenchSettings, out: Path
) -> None:
    run(settings, out)
    made_by_older_code(out)
    more = LadderSettings(action="truncate", ranks=(6, 4, 2))
    bench, accepting = run(
        changed(settings, variants=(more, settings.variants[1])), out, accept=("code",)
    )
    assert {name.split()[0] for name in accepting.started} == {"truncate-r6", "control-random"}
    probes = {t.id for t in bench.trials if t.spec.variant.name == "probe"}
    assert probes <= set(bench.accepted)
    assert {need for trial in bench.trials for need in trial.needs} == probes


def test_a_result_survives_when_the_training_that_should_bring_back_its_adapter_fails(
    settings: BenchSettings, out: Path
) -> None:
    bench, _ = run(settings, out)
    ledger = Ledger(out)
    probe = bench.trials[0]
    before = ledger.result(probe)
    ledger.evict(probe.id, "adapter", 1, now=NOW)
    more = LadderSettings(action="truncate", ranks=(6, 4, 2))
    wider = changed(settings, variants=(more, settings.variants[1]))
    bench, _ = run(wider, out, FakeExecutor(failing=["probe seed 0"]))
    assert ledger.result(probe) == before
    assert ledger.evicted(probe.id) is not None
    lost = failures(ledger, bench)
    assert {failure.seed for failure in lost} == {0}
    assert all("could not be trained again" in failure.message for failure in lost)
    report = judged(out)
    assert report is not None
    assert {score.seed for score in report.scores if score.variant == "truncate-r4"} == {0, 1}

    _, third = run(wider, out)
    assert third.started == []  # what failed waits to be asked for
    bench, fourth = run(wider, out, retry_failed=True)
    assert fourth.started[:2] == ["probe seed 0", "truncate-r6 seed 0"]
    assert len(results(out, bench)) == len(bench.trials)
    assert failures(ledger, bench) == ()
    assert ledger.evicted(probe.id) is None


def test_an_adapter_half_made_by_a_training_that_failed_is_no_probes(
    settings: BenchSettings, out: Path
) -> None:
    bench, _ = run(settings, out)
    ledger = Ledger(out)
    probe = bench.trials[0]
    ledger.set_aside(probe.id)
    ledger.write_failure(probe.id, "killed", now=NOW)  # its driver was, just then
    more = LadderSettings(action="truncate", ranks=(6, 4, 2))
    wider = changed(settings, variants=(more, settings.variants[1]))
    _, second = run(wider, out)
    assert not any(name.endswith("seed 0") for name in second.started)
    assert ledger.result(probe) is not None
    assert not ledger.paths(probe.id).adapter.exists()


def test_a_report_says_at_which_look_it_is_and_what_is_left_of_the_level(
    settings: BenchSettings, out: Path
) -> None:
    def looks_told() -> list[str]:
        report = judged(out)
        assert report is not None
        return [note for note in report.notes if note.startswith("This is look")]

    run(settings, out)
    run(settings, out)  # the same seeds again are no other look
    assert looks_told() == []
    run(changed(settings, seeds=(0, 1, 2)), out)
    assert "(0, 1)" in looks_told()[0]
    assert "with a chance of up to 0.1." in looks_told()[0]
    bench, _ = run(changed(settings, seeds=(0, 1, 2, 3)), out)
    assert "(0, 1; 0, 1, 2)" in looks_told()[0]
    assert "with a chance of up to 0.15." in looks_told()[0]
    assert bench.looks == ((0, 1), (0, 1, 2), (0, 1, 2, 3))


def test_looks_that_were_planned_share_the_level(settings: BenchSettings, out: Path) -> None:
    claim = msgspec.structs.replace(settings.claim, looks=2)
    run(changed(settings, claim=claim), out)
    run(changed(settings, claim=claim, seeds=(0, 1, 2)), out)
    report = judged(out)
    assert report is not None
    [told] = [note for note in report.notes if note.startswith("This is look")]
    assert told.endswith("The claim allows for 2, and each has its part of the level.")
    ladders = len({verdict.ladder for verdict in report.verdicts})
    assert min(verdict.level for verdict in report.verdicts) == 0.05 / 2 / ladders


def test_looks_that_were_planned_after_the_first_do_not_share_what_it_spent(
    settings: BenchSettings, out: Path
) -> None:
    run(settings, out)
    claim = msgspec.structs.replace(settings.claim, looks=5)
    run(changed(settings, claim=claim, seeds=(0, 1, 2)), out)
    report = judged(out)
    assert report is not None
    [told] = [note for note in report.notes if note.startswith("This is look")]
    assert "The claim was changed" in told
    assert "with a chance of up to 0.06." in told


def test_a_bench_without_a_report_yet_is_not_called_a_wrong_directory(
    settings: BenchSettings, out: Path
) -> None:
    run(settings, out)
    with pytest.raises(ArtifactError, match="has no report yet"):
        verify(out)


def test_where_only_a_smoke_run_is_its_directory_is_named(
    settings: BenchSettings, out: Path
) -> None:
    run(settings, out / "smoke")
    report = judged(out / "smoke")
    assert report is not None
    write(report, out / "smoke", now=NOW)
    with pytest.raises(ArtifactError, match="holds a smoke run and no bench") as error:
        verify(out)
    assert f"gradience bench verify {out / 'smoke'}" in error.value.remedy
    assert not verify(out / "smoke").differences
