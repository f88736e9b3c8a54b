"""`gradience run`: any program, on real small disks."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from factories_disks import btrfs_with_quota, tmpfs
from gradience.system import processes

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "sigtimedwait"), reason="this system has no sigtimedwait"
)

FAST = "interval: 0.05s\ngrace: 1s\n"
# Writes until it is asked to stop, then saves a last file.
SAVES = """
stop() { head -c 900000 /dev/zero > "$1/last.tmp" && mv "$1/last.tmp" "$1/last"; exit 0; }
trap 'stop "$1"' TERM
i=0
while :; do
    head -c 100000 /dev/zero > "$1/part-$i" || exit 9
    i=$((i + 1)); sleep 0.02
done
"""
IGNORES = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for i in range(40):
    pathlib.Path(sys.argv[1], f"part-{i}").write_bytes(b"x" * 200_000)
    time.sleep(0.02)
time.sleep(1.5)
"""
BY_FILE = r"""
my ($dir, $stop) = @ARGV;
for my $i (0 .. 400) {
    last if -e $stop;
    open(my $f, '>', "$dir/part-$i") or exit 9;
    print $f 'x' x 100000; close($f) or exit 9;
    select(undef, undef, undef, 0.02);
}
exit(-e $stop ? 0 : 8);
"""


def start(home: Path, *words: object, **options) -> subprocess.Popen[str]:
    environ = {**os.environ, "HOME": str(home)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "gradience", "run", "--no-env", *map(str, words)]
    return subprocess.Popen(command, cwd=home, **{"env": environ, **pipes, **options})


def run(home: Path, *words: object, **options):
    process = start(home, *words, **options)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, " ".join((err or "").split())


@pytest.fixture
def policy(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(FAST)
    return path


def test_a_shell_program_is_asked_in_time_and_its_last_file_is_whole(tmp_path, policy):
    with tmpfs(tmp_path / "disk", "size=10m") as disk:
        words = ("--policy", policy, "--output-dir", disk, "--", "sh", "-c", SAVES, "sh", disk)
        code, _, err = run(tmp_path, *words)
        assert code == 0, err
        assert (disk / "last").stat().st_size == 900_000
        assert "asked to stop by SIGTERM" in err
        assert "was released" in err
        assert not list(disk.glob(".gradience*"))


@pytest.mark.root
def test_a_quota_that_df_does_not_show_is_seen_in_time(tmp_path, policy):
    with btrfs_with_quota(tmp_path / "disk", 20_000_000) as disk:
        words = ("--policy", policy, "--output-dir", disk, "--", "sh", "-c", SAVES, "sh", disk)
        code, _, err = run(tmp_path, *words)
        assert (code, (disk / "last").stat().st_size) == (0, 900_000), err


def test_how_it_ended_is_written_to_a_file_and_the_output_is_the_commands(tmp_path, policy):
    with tmpfs(tmp_path / "disk", "size=10m") as disk:
        words = ("--policy", policy, "--output-dir", disk, "--json", tmp_path / "run.json")
        code, out, err = run(tmp_path, *words, "--", "sh", "-c", f"echo mine; {SAVES}", "sh", disk)
        assert (code, out) == (0, "mine\n"), err
        envelope = json.loads((tmp_path / "run.json").read_text())
        assert envelope["schema"] == "gradience.run/v1"
        ended = envelope["content"]
        assert ended["code"] == 0
        assert ended["asked"]["how"] == "SIGTERM"
        assert ended["disks"][0]["lowest"] < ended["disks"][0]["first"]
    refused = run(tmp_path, "--json", "/proc/nowhere/run.json", "--", "sh", "-c", "exit 3")
    assert refused[0] == 3, "the command's own"
    assert "cannot be" in refused[2]


def test_a_program_that_ignores_the_request_is_named_in_the_summary(tmp_path, policy):
    with tmpfs(tmp_path / "disk", "size=10m") as disk:
        policy.write_text(FAST + "stop_below: 4MB\n")
        python = (sys.executable, "-c", IGNORES, disk)
        code, _, err = run(tmp_path, "--policy", policy, "--output-dir", disk, "--", *python)
        assert code == 0, err
        assert "It ignored the request" in err


def test_a_program_can_be_asked_by_a_file(tmp_path, policy):
    if shutil.which("perl") is None:
        pytest.skip("perl is not installed")
    stop = tmp_path / "STOP"
    policy.write_text(FAST + f"stop_file: {stop}\n")
    with tmpfs(tmp_path / "disk", "size=10m") as disk:
        perl = ("perl", "-e", BY_FILE, disk, stop)
        code, _, err = run(tmp_path, "--policy", policy, "--output-dir", disk, "--", *perl)
        assert (code, stop.exists()) == (0, True), err
        assert f"asked to stop by {stop}" in err


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "USR2"])
def test_a_signal_is_passed_on_once(tmp_path, name):
    program = f"""
import signal, sys, time
got = []
signal.signal(signal.SIG{name}, lambda *_: got.append(1))
print("ready", flush=True)
end = time.monotonic() + 1.0
while time.monotonic() < end: time.sleep(0.05)
sys.exit(40 + len(got))
"""
    with start(tmp_path, "--", sys.executable, "-c", program) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        process.send_signal(signal.Signals[f"SIG{name}"])
        _, err = process.communicate(timeout=30)
    assert (ready, process.returncode) == ("ready\n", 41), err


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -TERM $$"), 143),
        (("no-such-program",), 127),
        (("/etc/passwd",), 126),
    ],
)
def test_the_exit_code_is_that_of_the_program(tmp_path, command, code):
    assert run(tmp_path, "--", *command)[0] == code


def test_input_and_output_are_the_programs_own(tmp_path):
    with (tmp_path / "in").open("w+") as file:
        file.write("hello")
        file.seek(0)
        code, out, err = run(tmp_path, "--", "cat", stdin=file)
    assert (code, out) == (0, "hello"), err


def test_a_terminal_stays_a_terminal(tmp_path):
    if shutil.which("script") is None:
        pytest.skip("script(1) is not installed")
    inner = f"{sys.executable} -m gradience run --no-env -- sh -c 'test -t 0 -a -t 1 && exit 5'"
    done = subprocess.run(
        ["script", "-qec", inner, "/dev/null"],
        check=False,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    assert done.returncode == 5, done.stdout


def test_a_killed_run_leaves_no_reserve_behind(tmp_path, policy):
    with tmpfs(tmp_path / "disk", "size=40m") as disk:
        before = os.statvfs(disk).f_bfree
        words = ("--policy", policy, "--output-dir", disk, "--", "sleep", "1.5")
        process = start(disk, *words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while os.statvfs(disk).f_bfree == before and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
        assert os.statvfs(disk).f_bfree < before
        process.kill()
        process.wait()
        time.sleep(0.1)
        assert os.statvfs(disk).f_bfree == before
        # Killed between the two calls, it would have left a name; the next run removes it.
        left = disk / f".gradience-ballast-{processes.here()}-{process.pid}"
        left.write_bytes(b"x" * 100_000)
        _, _, err = run(tmp_path, "--output-dir", disk, "--", "true")
        assert "of a reserve that a killed run left were removed" in err
        assert not left.exists()


def test_a_run_that_does_not_fit_is_not_started(tmp_path):
    with tmpfs(tmp_path / "disk", "size=4m") as disk:
        (tmp_path / "run.yaml").write_text(
            f"save_strategy: 'no'\nothers: [{{what: data, path: {disk}/x, bytes: 9000000}}]\n"
        )
        words = ("--preflight", "run.yaml", "--", "touch", tmp_path / "started")
        code, _, err = run(tmp_path, *words)
        assert (code, (tmp_path / "started").exists()) == (5, False)
        assert "DOES NOT FIT" in err
        assert run(tmp_path, "--on-full", "warn", *words)[0] == 0
        assert (tmp_path / "started").exists()


def test_a_key_of_the_policy_that_is_not_known_is_refused_with_the_nearest(tmp_path, policy):
    policy.write_text("stop_bellow: 1GB\n")
    code, _, err = run(tmp_path, "--policy", policy, "--", "true")
    assert (code, "did you mean 'stop_below'?" in err) == (2, True)


def junk(home: Path, size: int) -> Path:
    """A hub cache with an abandoned download, which a cleaning takes."""
    blobs = home / "hub" / "models--org--name" / "blobs"
    blobs.mkdir(parents=True)
    partial = blobs / f"{'a' * 40}.0123abcd.incomplete"
    partial.write_bytes(b"x" * size)
    os.utime(partial, (1_600_000_000, 1_600_000_000))
    return partial


def test_what_the_policy_allows_is_cleaned_before_the_program_is_asked(tmp_path, policy):
    with tmpfs(tmp_path / "disk", "size=10m") as disk:
        partial = junk(disk / "hf", 7_000_000)
        policy.write_text(
            FAST.replace("1s", "20s") + "stop_below: 2MB\nballast: 500KB\nclean: [--kind, hub]\n"
        )
        program = f"sleep 0.3; head -c 1200000 /dev/zero > {disk}/out; sleep 1"
        words = ("--policy", policy, "--output-dir", disk, "--", "sh", "-c", program)
        environ = {**os.environ, "HF_HOME": str(disk / "hf")}
        code, _, err = run(tmp_path, *words, env={**environ, "HOME": str(tmp_path)})
        assert (code, partial.exists()) == (0, False), err
        assert "cleaning, as the policy allows" in err
        assert "Cleaning freed 7" in err
        assert "asked to stop" not in err


def in_a_fresh_home(home: Path, *words: str, **more: str) -> tuple[set[str], str]:
    """The variables that the program got beyond those it was started with, and what was said."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), **more}
    show = "import os; print(*os.environ, sep='\\n')"
    command = ["-m", "gradience", "run", *words, "--", sys.executable, "-c", show]
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        check=True,
        cwd=home,
        env=environ,
    )
    return set(done.stdout.split()) - {*environ, "LC_CTYPE"}, done.stderr


def test_the_program_gets_the_variables_of_gradience_env_and_each_is_named(tmp_path):
    set_by_us, said = in_a_fresh_home(tmp_path)
    env = [sys.executable, "-m", "gradience", "env", "--format", "dotenv"]
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(env, capture_output=True, text=True, check=True, env=environ)
    lines = [line for line in done.stdout.splitlines() if "=" in line and line[0] != "#"]
    assert set_by_us == {line.partition("=")[0] for line in lines}
    assert all(name in said for name in set_by_us)


def test_a_place_that_a_variable_of_the_user_decides_stays(tmp_path):
    ours, _ = in_a_fresh_home(tmp_path, HF_HOME=str(tmp_path / "mine"))
    assert "TORCH_HOME" in ours
    assert not {n for n in ours if n.startswith("HF_")}
    assert not list(tmp_path.rglob("hub")), "and no directory is made for it"


def test_without_the_environment_nothing_is_set_or_made(tmp_path):
    assert in_a_fresh_home(tmp_path, "--no-env")[0] == set()
    assert list(tmp_path.iterdir()) == []


def test_a_cleaning_that_cannot_be_meant_is_refused_before_the_program_starts(tmp_path, policy):
    policy.write_text("clean: [--no-such-option]\n")
    code, _, err = run(tmp_path, "--policy", policy, "--", "touch", tmp_path / "started")
    assert (code, (tmp_path / "started").exists()) == (2, False), err
