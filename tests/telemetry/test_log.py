"""The log of a run: it is only ever added to, and every line of it is strict JSON."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from factories_disks import tmpfs
from factories_runs import make_end, make_start, make_steps, write_log
from gradience.errors import ArtifactError
from gradience.telemetry.log import RunLog, last_run_id
from gradience.telemetry.read import Reader
from gradience.telemetry.records import Metrics, RunEnd, RunStart, TrainStep
from gradience.telemetry.redact import redacted


def strict(line: str) -> dict[str, object]:
    def refuse(word):
        raise AssertionError(f"bare {word}")

    return json.loads(line, parse_constant=refuse)


def test_a_second_writer_adds_to_what_is_there(tmp_path):
    path = tmp_path / "deep" / "run.jsonl"
    for step in range(19):
        RunLog(path, run_id="a").add(Metrics, step=step, kind="x")
    RunLog(path, run_id="a").add(Metrics, step=19, kind="x")
    assert [e.step for e in Reader(path).news()] == list(range(20))


def test_every_line_has_the_five_keys_and_no_bare_nan(tmp_path):
    log = RunLog(tmp_path / "run.jsonl")
    log.add(RunStart, step=0, written_by="t", config={"x": float("nan"), "y": [float("-inf")]})
    log.add(Metrics, kind="x", values={"z": float("inf")})
    for line in log.path.read_text().splitlines():
        found = strict(line)
        assert {"schema", "ts", "run_id", "event", "step"} <= found.keys()
        assert found["schema"] == "gradience.vnext.telemetry/v1"


def test_a_torn_line_costs_only_itself(tmp_path):
    path = write_log(tmp_path / "run.jsonl", make_start(), *make_steps([1.0, 2.0]))
    with path.open("ab") as file:
        file.write(b'{"event":"train_step","schema":"grad')
    reader = Reader(path)
    assert len(reader.news()) == 3
    assert reader.pending
    RunLog(path, run_id="r1").add(Metrics, step=3, kind="x")
    assert [type(e) for e in reader.news()] == [Metrics]
    assert (reader.torn, reader.pending) == (1, False)


def test_killed_at_any_point_it_keeps_every_line_that_was_whole(tmp_path):
    path = tmp_path / "run.jsonl"
    code = (
        "import sys; from pathlib import Path; from gradience.telemetry.log import RunLog\n"
        "from gradience.telemetry.records import Metrics\n"
        "log = RunLog(Path(sys.argv[1]), run_id='a')\n"
        "for step in range(10**9):\n"
        "    log.add(Metrics, step=step, kind='x', values={'pad': 'y' * 200})\n"
        "    print(step, flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    seen = [int(child.stdout.readline()) for _ in range(50)][-1]
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    steps = [e.step for e in Reader(path).news()]
    assert steps == list(range(len(steps)))
    assert len(steps) > seen


@pytest.mark.root
def test_what_a_full_disk_refuses_is_counted_and_the_rest_stays(tmp_path, caplog):
    with tmpfs(tmp_path / "disk", "size=64k") as place:
        log = RunLog(place / "run.jsonl")
        for step in range(500):
            log.add(Metrics, step=step, kind="x", values={"pad": "y" * 200})
        lost = log.lost
        assert lost > 0
        log.close()
        assert f"{lost} lines of the run's log were lost" in caplog.text
        reader = Reader(log.path)
        assert [e.step for e in reader.news()] == list(range(500 - lost))


def test_a_directory_that_cannot_be_written_harms_nothing(tmp_path):
    (tmp_path / "file").write_text("not a directory")
    log = RunLog(tmp_path / "file" / "run.jsonl")
    log.add(Metrics, kind="x")
    log.close()
    assert log.lost == 1


def test_the_first_line_that_is_lost_is_told_while_the_run_goes_on(tmp_path, caplog):
    log = RunLog(tmp_path)  # a directory, as somebody would name one
    for _ in range(3):
        log.add(Metrics, kind="x")
    (record,) = caplog.records
    assert f"a line of the run's log was lost: {tmp_path} cannot be written" in record.message


def test_long_texts_and_secrets_are_redacted_unless_allowed():
    long = "x" * 257
    given = {"prompt": long, "note": long, "short": "x" * 256, "hub_token": "hf_1", "n": 1}
    found = redacted(given, allow={"note"})
    assert found["prompt"] == "<redacted: 257 characters>"
    assert found["note"] == long
    assert found["short"] == "x" * 256
    assert found["hub_token"] == "<redacted>"


def test_a_newer_event_is_skipped_and_a_newer_schema_refused_by_name(tmp_path):
    path = write_log(tmp_path / "run.jsonl", make_start())
    line = path.read_text()
    with path.open("a") as file:
        file.write(line.replace("run_start", "telepathy"))
    reader = Reader(path)
    assert (len(reader.news()), reader.unknown, reader.torn) == (1, 1, 0)
    with path.open("a") as file:
        file.write(line.replace("telemetry/v1", "telemetry/v2"))
    with pytest.raises(ArtifactError, match="telemetry/v2"):
        reader.news()


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("hello\n")
    with pytest.raises(ArtifactError, match="is no log of a run"):
        Reader(path).news()


def test_the_last_run_is_found_behind_a_torn_line(tmp_path):
    path = write_log(tmp_path / "run.jsonl", make_start(run_id="a"), make_end(1, run_id="b"))
    with path.open("ab") as file:
        file.write(b'{"run_id": "c')
    assert last_run_id(path) == "b"
    assert last_run_id(tmp_path / "none") == ""


def test_a_line_of_the_first_release_is_still_read():
    path = Path(__file__).parents[1] / "golden" / "telemetry.v1.jsonl"
    reader = Reader(path)
    events = reader.news()
    assert (reader.torn, reader.unknown) == (0, 0)
    assert isinstance(events[0], RunStart)
    assert isinstance(events[-1], RunEnd)
    assert len({type(e) for e in events}) == 7, "one of each event"
    assert any(isinstance(e, TrainStep) and e.not_finite for e in events)
