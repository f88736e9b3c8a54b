"""`gradience monitor`: what a user types, reads, and gets back as an exit code."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from factories_runs import make_end, make_line, make_start, make_steps, write_log
from gradience.cli.audit import audit
from gradience.cli.monitor import monitor
from gradience.errors import ArtifactError, UsageError
from gradience.telemetry.records import TrainStep

DEMO = Path(__file__).parents[2] / "examples" / "demo_adapter"
GOOD = [make_start(), *make_steps([2.0, 1.5, 1.0]), make_end(3)]
NAN = make_line(TrainStep, 2, 2, not_finite={"loss": "nan"})
BAD = [make_start(), NAN, make_end(2)]


def run(*words):
    done = CliRunner().invoke(monitor, [str(w) for w in words], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.return_value, done.output


def test_a_good_run_exits_with_0_and_an_alert_with_1(tmp_path):
    good = write_log(tmp_path / "good" / "run.jsonl", *GOOD)
    bad = write_log(tmp_path / "bad" / "run.jsonl", *BAD)
    code, page = run(good.parent)
    assert code == 0
    assert "finished at step 3 of 1000" in page
    assert "No alert." in page
    code, page = run(bad)
    assert code == 1
    assert "the training loss is nan, at step 2 [loss_not_finite]" in page
    assert run(bad, "--fail-on", "never")[0] == 0
    assert run(bad, "--fail-on", "gradient_spike")[0] == 0
    assert run(bad, "--fail-on", "loss_not_finite")[0] == 1


def test_json_is_the_artifact_and_nothing_else(tmp_path):
    envelope = json.loads(run(write_log(tmp_path / "run.jsonl", *BAD), "--json")[1])
    assert envelope["schema"] == "gradience.monitor/v1"
    assert envelope["content"]["alarms"][0]["step"] == 2


def test_errors_name_the_file_and_the_way_out(tmp_path):
    with pytest.raises(ArtifactError, match=r"holds no run\.jsonl"):
        run(tmp_path)
    with pytest.raises(ArtifactError, match="cannot be read"):
        run(tmp_path / "none.jsonl")
    log = write_log(tmp_path / "run.jsonl", *GOOD)
    with pytest.raises(UsageError, match="no run 'x'") as caught:
        run(log, "--run", "x")
    assert "r1" in caught.value.remedy
    with pytest.raises(UsageError, match="neither a severity"):
        run(log, "--fail-on", "los_not_finite")


def test_follow_prints_lines_as_they_come_and_ends_with_the_run(tmp_path):
    log = write_log(tmp_path / "run.jsonl", *GOOD[:2])

    def write_on():
        time.sleep(0.3)
        with log.open("ab") as file:
            for event in GOOD[2:]:
                file.write(msgspec.json.encode(event) + b"\n")

    writer = threading.Thread(target=write_on)
    writer.start()
    code, lines = run(log, "--follow")
    writer.join()
    assert code == 0
    assert [line.split()[2:4] for line in lines.splitlines()[1:4]] == [
        [str(step), "train_step"] for step in (1, 2, 3)
    ]
    assert "run_end status=finished" in lines


def test_an_audit_is_added_to_the_log_and_shown(tmp_path):
    log = write_log(tmp_path / "run.jsonl", *GOOD)
    before = log.read_bytes()
    words = [str(DEMO), "--append", str(log)]
    done = CliRunner().invoke(audit, words, standalone_mode=False, catch_exceptions=False)
    assert done.return_value == 0
    assert log.read_bytes().startswith(before)
    code, page = run(log)
    assert code == 0
    assert "rank 8, stable_rank_median 1.4" in page
    content = json.loads(run(log, "--json")[1])["content"]
    assert content["status"] == "finished"
    assert content["audit"]["modules"] == 18


def test_the_command_starts_without_torch(tmp_path):
    log = write_log(tmp_path / "run.jsonl", *GOOD)
    code = "import sys; from gradience.cli.main import main\n"
    code += f"try: main(['monitor', {str(log)!r}])\n"
    code += "except SystemExit: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
