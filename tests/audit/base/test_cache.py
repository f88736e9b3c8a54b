"""Remembered norms: believed only when they make sense, never lost, never half written."""

import contextlib
import json
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gradience.audit.base.base_norm import BaseNorm
from gradience.audit.base.cache import Identity, Recalled, entry_path, recall, remember
from gradience.audit.base.weights import BaseWeight, Part

NOW = datetime(2026, 11, 23, tzinfo=UTC)
IDENTITY = Identity(model="org/tiny", revision="a1b2c3d4e5", fingerprint="blake3:" + "7f" * 32)


def weight(name: str = "w", shape: tuple[int, int] = (4, 3), dtype: str = "BF16") -> BaseWeight:
    return BaseWeight(parts=(Part(tensor=name),), stored_shape=shape, dtype=dtype)


def norm(lower: float = 2.0, **changes: Any) -> BaseNorm:
    values: dict[str, Any] = {
        "lower": lower,
        "upper": 2.001,
        "frobenius": 3.0,
        "shape": (4, 3),
        "dtype": "BF16",
        "width": 1e-3,
        "eta": 1e-9,
        "passes": 8,
    }
    return BaseNorm(**{**values, **changes})


def kept(path: Path, **norms: BaseNorm) -> None:
    assert remember(path, IDENTITY, norms, {}, now=NOW) is None


def recalled(path: Path, *names: str) -> Recalled:
    return recall(path, IDENTITY, [weight(name) for name in names or ("w",)])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return entry_path(tmp_path / "base_norms", IDENTITY)


def test_what_is_remembered_comes_back_and_can_be_read_by_people(path: Path) -> None:
    assert recalled(path) == Recalled(norms={}, reasons={})
    kept(path, w=norm())
    assert recalled(path).norms == {"w": norm()}
    assert recalled(path).doubts == ()
    assert path.name == "org--tiny@a1b2c3d-7f7f7f7f.json"
    text = path.read_text()
    assert text.count("\n") > 20
    assert json.loads(text)["schema"] == "gradience.base_norms/v1"
    assert json.loads(text)["written_at"] == "2026-11-23T00:00:00+00:00"


def test_an_entry_grows_and_keeps_the_finer_of_two_norms(path: Path) -> None:
    kept(path, a=norm(), b=norm(width=1e-6))
    kept(path, b=norm(1.5), c=norm())
    assert recalled(path, "a", "b", "c").norms == {"a": norm(), "b": norm(width=1e-6), "c": norm()}


def test_a_norm_serves_those_who_ask_for_no_more_than_it_promises(path: Path) -> None:
    kept(path, w=norm())
    found = recalled(path)
    assert found.serves(weight(), width=1e-2, eta=1e-6)
    assert not found.serves(weight(), width=1e-4, eta=1e-9)
    assert not found.serves(weight(), width=1e-3, eta=1e-12)
    assert not found.serves(weight("other"), width=1.0, eta=0.1)


def test_that_a_weight_has_no_norm_is_remembered_too(path: Path) -> None:
    remember(path, IDENTITY, {}, {"w": "it holds NaN"}, now=NOW)
    assert recalled(path).serves(weight(), width=1e-3, eta=1e-9)
    assert recalled(path).reasons == {"w": "it holds NaN"}


WRONG = {
    "a string": {"lower": "2.0"},
    "a boolean": {"lower": True},
    "negative": {"lower": -1.0},
    "lower above upper": {"lower": 2.5},
    "above Frobenius": {"frobenius": 1.0},
    "too small for Frobenius": {"frobenius": 300.0},
    "null": {"upper": None},
    "a list": {"frobenius": [1.0]},
    "another shape": {"shape": [3, 4]},
    "three dimensions": {"shape": [4, 3, 1]},
    "another type": {"dtype": "F32"},
    "missing key": {"passes": ...},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=list(WRONG))
def test_a_wrong_entry_is_not_believed_and_the_rest_is(path: Path, change: dict[str, Any]) -> None:
    kept(path, w=norm(), good=norm())
    data = json.loads(path.read_text())
    entry = {**data["content"]["norms"]["w"], **change}
    data["content"]["norms"]["w"] = {k: v for k, v in entry.items() if v is not ...}
    path.write_text(json.dumps(data))

    found = recalled(path, "w", "good")
    assert found.norms == {"good": norm()}
    assert len(found.doubts) == 1
    assert found.doubts[0].startswith("w:")

    remember(path, IDENTITY, {"w": norm(1.9)}, {}, forget=found.distrusted, now=NOW)
    assert recalled(path, "w", "good") == Recalled(
        norms={"good": norm(), "w": norm(1.9)}, reasons={}
    )


BROKEN = {
    "empty": b"",
    "not JSON": b"{",
    "NaN": b'{"schema": "gradience.base_norms/v1", "content": NaN}',
    "too large a number": b'{"schema": "gradience.base_norms/v1", "content": 1e999}',
    "not UTF-8": b"\xff\xfe\x00",
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "of the future": b'{"schema": "gradience.base_norms/v9", "written_by": "", "written_at": "",'
    b' "content": {}}',
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=list(BROKEN))
def test_a_broken_file_is_not_believed_and_is_set_right(path: Path, data: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(data)
    assert recalled(path).norms == {}
    assert len(recalled(path).doubts) == 1
    kept(path, w=norm())
    assert recalled(path) == Recalled(norms={"w": norm()}, reasons={})


def test_norms_of_another_content_are_not_believed(path: Path) -> None:
    kept(path, w=norm())
    other = Identity(model="org/tiny", revision="a1b2c3d4e5", fingerprint="blake3:" + "00" * 32)
    assert entry_path(path.parent, other) != path
    found = recall(path, other, [weight()])
    assert found.norms == {}
    assert "another content" in found.doubts[0]


def test_norms_by_another_method_are_measured_again_without_alarm(path: Path) -> None:
    kept(path, w=norm())
    path.write_text(path.read_text().replace("block-lanczos/1", "block-lanczos/0"))
    assert recalled(path) == Recalled(norms={}, reasons={})


@pytest.mark.parametrize("model", ["../../etc/passwd", "", ".", "a b/ü\n", "x" * 500])
def test_a_file_name_stays_in_its_directory(tmp_path: Path, model: str) -> None:
    one = entry_path(
        tmp_path, Identity(model=model, revision=None, fingerprint="blake3:0123456789")
    )
    assert one.parent == tmp_path
    assert not one.name.startswith(".")
    assert len(one.name) < 200


WRITER = """
    import sys
    from datetime import UTC, datetime
    from pathlib import Path
    from gradience.audit.base.cache import Identity, remember
    from gradience.audit.base.base_norm import BaseNorm

    path, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    identity = Identity(model="org/tiny", revision="a1b2c3d4e5", fingerprint="blake3:" + "7f" * 32)
    norm = BaseNorm(lower=2.0, upper=2.001, frobenius=3.0, shape=(4, 3), dtype="BF16",
                    width=1e-3, eta=1e-9, passes=8)
    print("ready", flush=True)
    for at in range(count):
        refused = remember(path, identity, {f"{name}{at}": norm}, {}, now=datetime.now(UTC))
        assert refused is None, refused
        print(at, flush=True)
"""


def writer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_many_processes_lose_no_update(path: Path) -> None:
    writers = [writer(path, name, 12) for name in "abcd"]
    for one in writers:
        assert one.communicate(timeout=60)[0].splitlines()[-1] == "11"
    names = [f"{name}{at}" for name in "abcd" for at in range(12)]
    assert recalled(path, *names).norms.keys() == set(names)


def test_a_writer_that_is_killed_leaves_the_old_content_or_the_new(path: Path) -> None:
    rng = random.Random(0)
    promised = 0
    for life in range(60):
        if life >= 5 and promised:  # a busy machine takes more lives to keep a first promise
            break
        with writer(path, f"{life}-", 100_000) as one:
            assert one.stdout
            assert one.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0.0, 0.08))
            one.send_signal(signal.SIGKILL)
            promised += len([line for line in one.stdout.read().splitlines() if line])
        found = recalled(path)
        assert found.doubts == ()
        assert len(found.norms) >= promised
    assert promised > 0
    kept(path, last=norm())


def test_a_directory_that_cannot_be_made_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = entry_path(tmp_path / "file", IDENTITY)
    assert recalled(path) == Recalled(norms={}, reasons={})
    finding = remember(path, IDENTITY, {"w": norm()}, {}, now=NOW)
    assert finding is not None
    assert finding.code == "base_norms_cache_unwritable"
    assert str(tmp_path / "file") in finding.message


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    point = tmp_path / "disk"
    point.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", point], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.decode().strip()}")
    yield point
    subprocess.run(["umount", point], check=True)


def fill(directory: Path) -> None:
    """Write until the disk refuses."""
    with (directory / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))


def test_no_name_of_a_stranger_leads_out_of_the_directory(tmp_path: Path) -> None:
    odd = Identity(model="../../m", revision="../../r", fingerprint="blake3:../../..")
    assert entry_path(tmp_path, odd).parent == tmp_path


@pytest.mark.root
def test_a_full_disk_keeps_what_was_there_and_is_a_finding(small_disk: Path) -> None:
    path = entry_path(small_disk / "base_norms", IDENTITY)
    kept(path, w=norm())
    before = path.read_bytes()
    fill(small_disk)
    finding = remember(path, IDENTITY, {f"layer{at}": norm() for at in range(500)}, {}, now=NOW)
    assert finding is not None
    assert finding.code == "base_norms_cache_unwritable"
    assert "No space left" in finding.message
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, f"{path.name}.lock"]


@pytest.mark.root
def test_a_read_only_disk_is_read_and_is_a_finding_when_it_must_be_written(
    small_disk: Path,
) -> None:
    path = entry_path(small_disk, IDENTITY)
    kept(path, w=norm())
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert recalled(path).norms == {"w": norm()}
    finding = remember(path, IDENTITY, {"v": norm()}, {}, now=NOW)
    assert finding is not None
    assert finding.code == "base_norms_cache_unwritable"
