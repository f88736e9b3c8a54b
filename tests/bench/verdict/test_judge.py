"""SAFE, NOT SAFE or UNDERPOWERED: what each promises, from results of worlds that are known."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from factories_worlds import CLAIM, CONTROLS, Made, ladder, make_results, replaced
from gradience.bench.records import Failure, Variant
from gradience.bench.settings import ClaimSettings
from gradience.bench.verdict import readouts
from gradience.bench.verdict.judge import judge
from gradience.bench.verdict.pairing import check
from gradience.errors import TrialResultError


def judged(results, claim=CLAIM, **more):
    return judge(name="world", claim=claim, results=results, **more)


def decisions(report):
    return {v.variant: v.decision for v in report.verdicts}


def of(results, name):
    return [r for r in results if r.trial.spec.variant.name == name]


def test_the_three_answers():
    assert decisions(judged(make_results())) == {
        "truncate-r16": "SAFE",
        "truncate-r8": "SAFE",
        "truncate-r4": "NOT SAFE",
    }
    small = make_results(items=150, made=(*ladder(losses={16: 0.0}, discordance=0.2), *CONTROLS))
    assert decisions(judged(small)) == {"truncate-r16": "UNDERPOWERED"}


def test_a_verdict_can_be_computed_again_by_hand():
    """Everything from the scores alone, in plain sums."""
    results = make_results(seeds=(3, 5, 9), items=400, world=4)
    probe = {r.trial.spec.seed: np.array(r.items.scores) for r in of(results, "probe")}
    d = [np.array(r.items.scores) - probe[r.trial.spec.seed] for r in of(results, "truncate-r8")]
    S, n = 3, 400
    mean = sum(x.sum() for x in d) / (S * n)
    by_item = sum(d) / S
    ms_seeds = n * sum((x.mean() - mean) ** 2 for x in d) / (S - 1)
    ms_items = S * sum((b - mean) ** 2 for b in by_item) / (n - 1)
    rest = sum(((x - x.mean() - by_item + mean) ** 2).sum() for x in d) / ((S - 1) * (n - 1))
    ms_seeds, ms_items = max(ms_seeds, rest), max(ms_items, rest)
    error = ((ms_seeds + ms_items - rest) / (S * n)) ** 0.5
    [verdict] = [v for v in judged(results).verdicts if v.variant == "truncate-r8"]
    assert verdict.difference == pytest.approx(mean)
    assert verdict.standard_error == pytest.approx(error)
    assert verdict.components["residual"] == pytest.approx(rest)
    assert verdict.per_seed == pytest.approx({"3": d[0].mean(), "5": d[1].mean(), "9": d[2].mean()})
    assert verdict.won == {s: int((x > 0).sum()) for s, x in zip("359", d, strict=True)}
    assert verdict.lost == {s: int((x < 0).sum()) for s, x in zip("359", d, strict=True)}


@pytest.mark.parametrize("world", range(12))
def test_safe_is_never_printed_below_the_power_that_was_asked_for(world):
    made = (*ladder(losses={16: 0.0, 8: 0.0}, discordance=0.04 + 0.015 * world), *CONTROLS)
    report = judged(make_results(made=made, items=900, seeds=(0, 1, 2), world=world))
    for v in report.verdicts:
        assert v.decision != "SAFE" or (v.power >= CLAIM.power and v.p_value <= v.level)


def test_a_test_that_passes_without_power_is_underpowered_and_says_what_is_enough():
    for world in range(40):
        made = (*ladder(losses={16: -0.02}, discordance=0.1), *CONTROLS)
        [v] = judged(make_results(made=made, items=300, seeds=(0, 1, 2), world=world)).verdicts
        if v.p_value <= v.level:
            break
    else:
        pytest.fail("no world passed the test")
    assert v.decision == "UNDERPOWERED"
    assert v.power < CLAIM.power
    assert "Enough, if these variances hold:" in v.reason
    assert "items" in v.reason


@pytest.mark.parametrize(
    ("looks", "told"),
    [
        (1, "another look, which the claim does not allow for: the level would not hold."),
        (3, "another look: the claim allows for 3 in all."),
    ],
)
def test_who_is_told_how_many_seeds_are_enough_is_told_that_they_are_another_look(looks, told):
    made = (*ladder(losses={16: 0.0}, discordance=0.05), *CONTROLS)
    results = make_results(made=made, items=3000, seeds=(0, 1, 2, 3), seed_sd=0.012)
    claim = msgspec.structs.replace(CLAIM, looks=looks)
    [v] = judged(results, claim).verdicts
    assert " seeds" in v.reason.partition("Enough, if these variances hold:")[2]
    assert told in v.reason


def test_a_loss_that_is_seen_but_not_measured_to_the_margin_is_said():
    made = (*ladder(losses={16: 0.035}, discordance=0.08), *CONTROLS)
    [v] = judged(make_results(made=made, items=400, seeds=(0, 1, 2))).verdicts
    assert v.decision == "UNDERPOWERED"
    assert v.upper < 0
    assert "a loss, though not whether of the margin" in v.reason


def test_one_seed_is_never_safe_and_the_reason_says_why():
    report = judged(make_results(seeds=(7,), items=5000))
    assert set(decisions(report).values()) <= {"UNDERPOWERED", "NOT SAFE"}
    assert decisions(report)["truncate-r16"] == "UNDERPOWERED"
    assert "One seed" in report.verdicts[0].reason
    assert report.verdicts[0].power == 0
    assert "for this one seed" in report.verdicts[2].reason  # a loss of 6 points


def test_below_a_step_that_is_not_safe_nothing_is_safe():
    made = (*ladder(losses={16: 0.06, 8: 0.0, 4: 0.08}), *CONTROLS)
    report = judged(make_results(made=made))
    assert set(decisions(report).values()) == {"NOT SAFE"}
    assert [v.tested for v in report.verdicts] == [True, False, False]
    assert "Not tested: its ladder stopped at truncate-r16" in report.verdicts[1].reason
    assert "is shown" in report.verdicts[2].reason  # harm is said, tested or not


def test_two_ladders_share_the_level():
    made = (*ladder(losses={16: 0.0}), *ladder("retrain", {16: 0.06}), *CONTROLS)
    levels = {v.variant: v.level for v in judged(make_results(made=made)).verdicts}
    assert levels == {"retrain-r16": 0.05, "truncate-r16": 0.025}


IDENTICAL = Made(
    variant=Variant(name="same", action="truncate", ladder="truncate", rank=32), discordance=0.0
)


def test_scores_that_never_differ_are_judged_exactly():
    [v] = judged(make_results(made=(IDENTICAL, *CONTROLS), items=1000)).verdicts
    assert v.decision == "SAFE"
    assert (v.difference, v.standard_error, v.power) == (0, 0, 1)
    assert v.p_value == pytest.approx((1 - 0.025) ** 1000)
    # Clopper and Pearson for none of 1000 items changed.
    assert v.lower == pytest.approx(-(1 - 0.05 ** (1 / 1000)))


def test_few_scores_that_never_differ_show_nothing():
    [v] = judged(make_results(made=(IDENTICAL, *CONTROLS), items=60)).verdicts
    assert v.decision == "UNDERPOWERED"
    assert "60 independent items are too few" in v.reason


def test_losses_that_are_no_shares_are_judged_too():
    claim = ClaimSettings(margin=0.02)
    report = judged(make_results(binary=False, metric="negative log-likelihood per token"), claim)
    assert not report.binary
    assert {v.mcnemar_p for v in report.verdicts} == {None}
    assert "points" not in report.verdicts[0].reason
    assert decisions(report)["truncate-r16"] == "SAFE"


def test_clusters_count_as_the_independent_items():
    loose, tied = make_results(items=1200), make_results(items=1200, clusters=60)
    a, b = judged(loose).verdicts[1], judged(tied).verdicts[1]
    assert (a.clusters, b.clusters) == (1200, 60)
    assert a.difference == pytest.approx(b.difference)
    assert b.items == 1200


def test_the_resaved_probe_must_be_the_probe_to_the_last_bit():
    results = make_results()
    report = judged(results)
    assert {c.variant: c.passed for c in report.controls} == {
        "control-resave": True,
        "control-random": True,
        "control-bf16": None,
        "control-int8": None,
    }
    assert report.notes == ()
    i = next(k for k, r in enumerate(results) if r.trial.spec.variant.action == "resave")
    scores = list(results[i].items.scores)
    scores[17] = 1 - scores[17]
    results[i] = replaced(results[i], scores)
    report = judged(results)
    assert report.notes[0].startswith("Control control-resave failed")
    assert "1 of 7500 scores differ" in report.notes[0]
    assert set(decisions(report).values()) == {"UNDERPOWERED"}
    assert all(v.reason.startswith("Withheld") for v in report.verdicts)


def test_a_bench_that_cannot_see_a_random_subspace_calls_nothing_safe():
    blind = [
        c if c.variant.action != "random" else Made(variant=c.variant, discordance=0.02)
        for c in CONTROLS
    ]
    report = judged(make_results(made=(*ladder(), *blind)))
    assert report.notes[0].startswith("Control control-random failed")
    assert decisions(report) == {
        "truncate-r16": "UNDERPOWERED",
        "truncate-r8": "UNDERPOWERED",
        "truncate-r4": "NOT SAFE",  # harm that was seen was seen
    }


def test_a_control_without_a_result_has_not_passed():
    results = [r for r in make_results() if r.trial.spec.variant.action != "random"]
    report = judged(results)
    assert "no result: it failed, or has not run yet" in report.notes[0]
    assert "SAFE" not in decisions(report).values()


def test_undertrained_probes_are_said_to_be_so():
    notes = judged(make_results(still_falling=(1, 3), before=0.95)).notes
    assert "seeds 1, 3 is undertrained" in notes[0]
    assert sum("not better than 95.00% before training" in note for note in notes) == 5


def test_a_variant_with_fewer_seeds_is_judged_on_those_it_has():
    results = make_results()
    gone = of(results, "truncate-r8")[2]
    failure = Failure(
        trial=gone.trial.id, variant="truncate-r8", seed=2, message="out of memory", log="log.txt"
    )
    report = judged([r for r in results if r is not gone], failures=[failure])
    assert report.verdicts[1].seeds == 4
    assert "truncate-r8 has no result for seed 2: judged on 4 of 5 seeds." in report.notes
    assert "1 trial failed: truncate-r8 (seed 2)." in report.notes


def test_a_variant_that_failed_with_one_seed_is_not_safe_by_the_others():
    results = make_results()
    gone = of(results, "truncate-r8")[2]
    left = [r for r in results if r is not gone]
    assert decisions(judged(left))["truncate-r8"] == "SAFE"
    failure = Failure(
        trial=gone.trial.id, variant="truncate-r8", seed=2, message="loss is NaN", log="log.txt"
    )
    report = judged(left, failures=[failure])
    assert decisions(report)["truncate-r8"] == "UNDERPOWERED"
    assert decisions(report)["truncate-r16"] == "SAFE"
    assert report.verdicts[1].reason.startswith("Withheld: its trial of seed 2 failed. Without")


def test_results_without_a_probe_of_their_seed_are_left_out_and_said_to_be():
    results = make_results()
    gone = of(results, "probe")[4]
    report = judged([r for r in results if r is not gone])
    assert {v.seeds for v in report.verdicts} == {4}
    assert any("no probe for seed 4" in note for note in report.notes)


def test_the_order_of_the_results_changes_nothing():
    results = make_results(seeds=(0, 1, 2), items=400)
    assert judged(results) == judged(results[::-1])


def broken(results, i, **items):
    changed = msgspec.structs.replace(results[i].items, **items)
    results[i] = msgspec.structs.replace(results[i], items=changed)
    return results


def test_other_items_are_an_error_that_names_the_trial_and_the_item():
    results = make_results(items=50)
    ids = list(results[0].items.ids)
    ids[4], ids[5] = ids[5], ids[4]
    last = len(results) - 1
    with pytest.raises(TrialResultError, match=r"item 5 of trial \w+ is 'world-5', of trial \w+"):
        judged(broken(results, last, ids=tuple(ids)))


def test_missing_items_are_an_error():
    results = make_results(items=50)
    short = results[3].items
    with pytest.raises(TrialResultError, match=r"item 50 of trial \w+ is missing"):
        judged(broken(results, 3, ids=short.ids[:-1], scores=short.scores[:-1]))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scores": (float("nan"),) + (1.0,) * 49}, "has score nan for item 'world-0'"),
        ({"scores": (1.0,) * 49}, "has 49 scores for 50 items"),
        ({"ids": ("a",) * 50}, "has item 'a' more than once"),
        ({"clusters": ("a",) * 50}, "in one cluster"),
    ],
)
def test_items_that_cannot_be_scored_are_an_error(changed, message):
    with pytest.raises(TrialResultError, match=message):
        judged(broken(make_results(items=50), 0, **changed))


def test_another_environment_than_the_probes_is_an_error():
    results = make_results(items=50)
    spec = msgspec.structs.replace(results[-1].trial.spec, versions={"torch": "3.0"})
    trial = msgspec.structs.replace(results[-1].trial, spec=spec)
    results[-1] = msgspec.structs.replace(results[-1], trial=trial)
    with pytest.raises(TrialResultError, match=r"differs from its probe \w+ in versions"):
        judged(results)


def test_another_probe_than_its_seeds_is_an_error():
    results = make_results(items=50)
    trial = msgspec.structs.replace(results[-1].trial, needs=("elsewhere",))
    results[-1] = msgspec.structs.replace(results[-1], trial=trial)
    with pytest.raises(TrialResultError, match="starts from elsewhere, but the probe of its seed"):
        judged(results)


def test_one_seed_twice_is_an_error():
    results = make_results(items=50)
    with pytest.raises(TrialResultError, match="are both of probe with seed 0"):
        judged([*results, results[0]])


def test_no_results_are_an_error():
    with pytest.raises(TrialResultError, match="nothing to judge"):
        judged([])


def test_mcnemar_is_the_sign_test_on_what_differs():
    scipy_stats = pytest.importorskip("scipy.stats")
    d = np.array([[1.0] * 9 + [-1.0] * 21 + [0.0] * 70])
    assert readouts.mcnemar(d) == pytest.approx(scipy_stats.binomtest(9, 30).pvalue)
    assert readouts.mcnemar(np.zeros((2, 5))) == 1.0


def test_the_bootstrap_is_the_same_every_time_and_near_the_bounds():
    results = make_results(items=1000)
    pair = check(results).pair("truncate-r8")
    assert pair is not None
    low, high = readouts.bootstrap(pair, 0.05)
    assert (low, high) == readouts.bootstrap(pair, 0.05)
    [v] = [v for v in judged(results).verdicts if v.variant == "truncate-r8"]
    assert low == pytest.approx(v.lower, abs=0.6 * v.standard_error)
    assert high == pytest.approx(v.upper, abs=0.6 * v.standard_error)


def test_the_bootstrap_has_the_variance_that_owen_derives():
    """V_items/G + V_seeds/S + 3 V_rest/(S G), here with rest alone."""
    results = make_results(items=800, seeds=tuple(range(8)))
    pair = check(results).pair("truncate-r16")
    assert pair is not None
    d = np.random.default_rng(0).standard_normal(pair.differences.shape)
    low, high = readouts.bootstrap(replace(pair, differences=d), 0.1587, replicates=4000)
    assert ((high - low) / 2) ** 2 == pytest.approx(3 / d.size, rel=0.25)


def test_a_pair_whose_halves_ran_on_different_processors_is_named():
    results = make_results(items=50)
    assert not any("ran on" in note for note in judged(results).notes)
    results = [msgspec.structs.replace(result, ran_on="cpu, 2 threads") for result in results]
    assert not any("ran on" in note for note in judged(results).notes)
    results[-1] = msgspec.structs.replace(results[-1], ran_on="cpu, 4 threads")
    name, seed = results[-1].trial.spec.variant.name, results[-1].trial.spec.seed
    told = f"{name} (seed {seed}) ran on cpu, 4 threads and its probe on cpu, 2 threads"
    assert any(note.startswith(told) for note in judged(results).notes)
