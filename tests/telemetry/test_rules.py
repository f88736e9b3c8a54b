"""What the rules tell, and what they keep silent about."""

import math
import random

import pytest

from factories_runs import BEGUN, make_eval, make_line, make_start, make_steps
from gradience.telemetry.finding_kinds import MONITOR
from gradience.telemetry.records import Eval, TrainStep
from gradience.telemetry.rules import RULES, Watch


def told(*events, start=None):
    watch = Watch(start or make_start())
    return [(a.code, a.step) for event in events for a in watch.see(event)]


def noisy(losses, seed=0):
    dice = random.Random(seed)
    return [loss * dice.uniform(0.8, 1.2) for loss in losses]


def falling(count, low=1.0):
    return [low + 2 * math.exp(-i / (count / 4)) for i in range(count)]


def gradients(norms):
    return [make_line(TrainStep, i + 1, i + 1, loss=1.0, grad_norm=n) for i, n in enumerate(norms)]


def bad_gradient(step, **facts):
    return make_line(TrainStep, step, step, not_finite={"grad_norm": "nan"}, **facts)


@pytest.mark.parametrize("seed", range(20))
def test_a_healthy_noisy_run_is_silent(seed):
    dice = random.Random(seed)
    events = [
        make_line(TrainStep, i + 1, (i + 1) * 2.0, loss=x, grad_norm=math.exp(dice.gauss(0, 0.6)))
        for i, x in enumerate(noisy(falling(400), seed))
    ]
    assert told(*events) == []


def test_nan_is_told_from_the_gradient_where_the_trainer_hides_it_from_the_loss():
    assert told(bad_gradient(7, loss=0.5)) == [("gradient_not_finite", 7)]
    lost = make_line(TrainStep, 7, 7, not_finite={"loss": "nan"})
    assert told(lost, lost) == [("loss_not_finite", 7)]
    tested = make_line(Eval, 7, 7, not_finite={"eval_loss": "nan"})
    assert told(tested, *make_steps([1.0]), tested) == [("loss_not_finite", 7)]


def test_in_fp16_a_step_that_the_scaler_skipped_is_no_alert():
    start = make_start(config={"training": {"fp16": True}})
    good = make_steps([1.0], first=2)[0]
    assert told(bad_gradient(1, loss=1.0), good, bad_gradient(3, loss=1.0), start=start) == []
    row = [bad_gradient(step, loss=1.0) for step in (1, 2, 3, 4)]
    assert told(*row, start=start) == [("gradient_not_finite", 3)]


def test_a_loss_that_gives_back_what_it_won_is_told_once():
    losses = [*noisy(falling(100)), *noisy([2.6] * 60)]
    found = told(*make_steps(losses))
    assert [code for code, _ in found] == ["loss_diverged"]
    assert 101 <= found[0][1] <= 106


def test_a_surrogate_loss_that_rises_from_zero_is_not_judged():
    assert told(*make_steps(i * 1e-3 for i in range(100))) == []
    start = make_start(config={"trainer": "GRPOTrainer"})
    assert told(*make_steps((i + 1) * 1e-3 for i in range(100)), start=start) == []


def test_a_spike_is_told_at_its_step_and_a_stale_norm_is_not_judged_again():
    norms = [1.0 + 0.1 * (i % 3) for i in range(30)]
    spike = gradients([*norms, 50.0])
    without = [make_line(TrainStep, 32 + i, 32 + i, loss=1.0) for i in range(5)]
    assert told(*spike, *without, make_eval(36, 1.0)) == [("gradient_spike", 31)]


def test_a_burst_of_spikes_is_one_alert_and_a_later_one_another():
    calm, burst = [1.0, 1.1, 0.9] * 10, [40.0, 50.0, 60.0]
    assert [step for _, step in told(*gradients([*calm, *burst, *calm, *burst]))] == [31, 64]


def test_overfitting_needs_two_rises_and_a_training_loss_that_falls():
    def run(evals, train):
        events = []
        for i, loss in enumerate(evals):
            events += make_steps([train(i)] * 10, first=1 + 10 * i)
            events.append(make_eval(10 * (i + 1), loss))
        return told(*events)

    assert run([1.0, 0.8, 0.9, 1.0, 1.1], lambda i: 1.0 / (i + 1)) == [("overfitting", 40)]
    assert run([1.0, 0.8, 0.9, 0.79, 0.9], lambda i: 1.0 / (i + 1)) == []
    assert run([1.0, 0.8, 0.9, 1.0, 1.1], lambda i: 1.0) == []


def test_a_slow_stretch_is_told_and_an_evaluation_is_not_taken_for_one():
    seconds, events = 0.0, []
    for i in range(60):
        seconds += 1.0 if i < 40 else 3.0
        events.append(make_line(TrainStep, i + 1, seconds, loss=1.0))
    assert told(*events) == [("throughput_drop", 43)]
    seconds, events = 0.0, []
    for i in range(100):
        seconds += 1.0
        events.append(make_line(TrainStep, i + 1, seconds, loss=1.0))
        if i % 2:
            seconds += 30.0
            events.append(make_line(Eval, i + 1, seconds, loss=1.0))
    assert told(*events) == []


def test_a_disk_that_will_be_full_before_the_run_ends_is_told_once():
    def run(per_step):
        return told(
            *(
                make_line(
                    TrainStep, i, i * 10, loss=1.0, disk_free_bytes=10**9 - round(per_step * i)
                )
                for i in range(1, 101)
            )
        )

    assert [code for code, _ in run(2e6)] == ["disk_filling"]
    assert run(1e5) == [], "1000 steps of it fit"


@pytest.mark.parametrize("name", list(RULES))
def test_a_rule_is_silent_about_what_it_has_not_seen(name):
    rule = RULES[name](make_start())
    empty = make_line(TrainStep, None, 1)
    assert list(rule.see(empty)) == []
    assert rule.__doc__


def test_every_kind_says_what_it_means_and_what_helps():
    for code, kind in MONITOR.items():
        assert code == kind.code
        assert kind.meaning.endswith(".")
        assert kind.remedy.endswith((".", "message."))
    assert BEGUN.tzinfo is not None
