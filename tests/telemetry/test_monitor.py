"""What a log says about its run."""

from datetime import timedelta

import pytest

from factories_runs import (
    BEGUN,
    make_end,
    make_eval,
    make_line,
    make_start,
    make_steps,
    write_log,
)
from gradience.findings import Severity
from gradience.page import Text
from gradience.telemetry.follow import Followed
from gradience.telemetry.monitor import Monitor
from gradience.telemetry.records import Alert, TrainStep
from gradience.telemetry.report import page


def read(*events, after=0.0):
    monitor = Monitor("r1")
    for event in events:
        monitor.see(event)
    return monitor.summary("run.jsonl", now=events[-1].ts + timedelta(seconds=after))


def test_the_summary_holds_the_curves_the_gap_and_the_pace():
    steps = make_steps([2.0, 1.5, 1.0, 1.2])
    found = read(make_start(), *steps, make_eval(4, 1.6))
    assert found.train.first == (1, 2.0)
    assert found.train.best == (3, 1.0)
    assert found.train.last == (4, 1.2)
    assert found.gap == pytest.approx(1.6 - 1.35)
    assert found.steps_per_second == pytest.approx(1.0)
    assert found.seconds_left == pytest.approx(996)
    assert (found.status, found.step, found.max_steps) == ("running", 4, 1000)


def test_the_gap_is_that_of_its_time_while_the_loss_falls():
    steps = make_steps([0.7, 0.6, 0.5, 0.4])
    evaluated = make_eval(2, 0.6), make_eval(4, 0.45)
    assert read(make_start(), *steps, *evaluated).gap == pytest.approx(0)
    rare = make_eval(3, 0.5), make_eval(4, 0.45), make_eval(5, 0.45)
    assert read(make_start(), *steps, *rare).gap == pytest.approx(0.05)


def test_a_loss_that_the_trainer_made_up_beside_a_nan_gradient_does_not_count():
    made_up = make_line(TrainStep, 3, 3, loss=0.0, not_finite={"grad_norm": "nan"})
    assert read(make_start(), *make_steps([2.0, 1.5]), made_up).train.best == (2, 1.5)


def test_what_is_not_in_the_log_is_absent():
    found = read(make_start())
    assert (found.train, found.gap, found.grad_norm_max, found.disk) == (None, None, None, None)
    assert found.alarms == ()


def test_steps_that_a_resume_went_back_before_do_not_count():
    nan = make_line(TrainStep, 5, 5, not_finite={"grad_norm": "nan"}, loss=9.0)
    again = make_start(seconds=10, resumed_from_step=4)
    later = make_line(TrainStep, 5, 11, loss=1.0)
    found = read(make_start(), *make_steps([2.0] * 4), nan, again, later)
    assert (found.parts, found.train.count, found.train.last) == (2, 5, (5, 1.0))
    assert found.alarms == ()
    assert [a.code for a in read(make_start(), nan).alarms] == ["gradient_not_finite"]


def test_an_alert_in_the_log_and_the_same_one_found_again_are_one():
    nan = make_line(TrainStep, 5, 5, not_finite={"loss": "nan"})
    said = {"severity": Severity.ERROR, "message": "m"}
    same = make_line(Alert, 5, 5, code="loss_not_finite", **said)
    other = make_line(Alert, 5, 5, code="mine", **said)
    found = read(make_start(), nan, same, other)
    assert [a.code for a in found.alarms] == ["loss_not_finite", "mine"]


def test_a_run_without_an_end_is_silent_only_after_a_long_time():
    events = [make_start(), *make_steps([1.0] * 5)]
    assert read(*events, after=599).status == "running"
    silent = read(*events, after=601)
    assert silent.status == "silent"
    assert [a.code for a in silent.alarms] == ["run_silent"]
    assert read(*events, make_end(5), after=1e6).alarms == ()


def test_a_failure_and_lost_lines_are_alerts():
    end = make_end(5, "failed", reason="RuntimeError: x", lost_lines=3)
    found = read(make_start(), *make_steps([1.0]), end)
    assert [a.code for a in found.alarms] == ["run_failed", "lines_lost"]
    assert found.lost_lines == 3


def test_the_last_run_of_a_file_is_meant_unless_another_is_named(tmp_path):
    log = write_log(
        tmp_path / "run.jsonl", make_start(run_id="a"), make_end(3, run_id="a"), make_start(1)
    )
    now = BEGUN + timedelta(seconds=5)
    last = Followed(tmp_path).look(now=now)
    assert (last.summary.run_id, last.summary.other_runs) == ("r1", ("a",))
    assert Followed(log, "a").look(now=now).summary.status == "finished"
    assert Followed(log, "b").look(now=now) is None


def test_following_takes_in_only_what_is_new(tmp_path):
    log = write_log(tmp_path / "run.jsonl", make_start(), *make_steps([1.0]))
    followed, now = Followed(log), BEGUN + timedelta(seconds=5)
    assert len(followed.look(now=now, ended=False).events) == 2
    with log.open("ab") as file:
        file.write(b'{"event":')
    look = followed.look(now=now, ended=False)
    assert (look.events, look.summary.torn_lines) == ((), 0)
    assert followed.look(now=now).summary.torn_lines == 1


def test_the_page_tells_one_alert_once_with_its_steps():
    nans = [make_line(TrainStep, i, i, not_finite={"loss": "nan"}) for i in (3, 4)]
    good = make_steps([1.0], first=5)
    later = [make_line(TrainStep, 6, 6, not_finite={"loss": "inf"})]
    shown = page(read(make_start(), *nans, *good, *later))
    alarms = [p.text for p in shown if isinstance(p, Text) and p.text.startswith("error: ")]
    assert len(alarms) == 1
    assert "at step 3, 6 [loss_not_finite]" in alarms[0]
