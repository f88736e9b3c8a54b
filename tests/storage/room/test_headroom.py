import errno
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from factories_disks import (
    SHARED,
    as_nobody,
    btrfs_with_quota,
    ext4,
    need,
    overlay,
    tmpfs,
    xfs,
)
from gradience.errors import GradienceError, UsageError
from gradience.storage.room.headroom import Confidence, Headroom, Limit, headroom
from gradience.storage.room.probe import Verdict, probe, spare_bytes
from gradience.storage.room.usage import used_below
from gradience.system.records import Mount

MB = 10**6
IMPORTS = """
import gradience.system.linux, gradience.system.quota.kernel, fcntl
from gradience.storage.room.headroom import headroom
###
"""
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="fallocate(2) is a call of Linux")


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A temporary directory that other users can enter; pytest's own is closed to them."""
    with tempfile.TemporaryDirectory(prefix="gradience-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def fill(path: Path, size: int) -> int:
    """Write until `size` bytes are there or the file system refuses; the bytes that it took."""
    assert size <= 100 * MB, "should the place be no small disk after all, that much is written"
    block = bytes(64 * 1024)
    written = 0
    with path.open("wb", buffering=0) as file:
        try:
            while written < size:
                written += file.write(block[: size - written])
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
    return written


def test_without_other_limits_the_file_system_binds_and_is_named(tmp_path):
    room = headroom(tmp_path / "not" / "yet", environ={})
    assert room.path == tmp_path.resolve()
    assert room.bytes is not None
    assert room.binding.confidence in set(Confidence)
    assert room.binding.source in room.sentence
    space = os.statvfs(tmp_path)
    assert room.bytes <= space.f_bfree * space.f_frsize * 1.05


def test_a_size_that_the_user_gave_is_less_what_lies_there(tmp_path):
    base = headroom(tmp_path, environ={}).mount
    (tmp_path / "used").write_bytes(os.urandom(3 * MB))
    room = headroom(tmp_path, environ={}, volume_size=10**6, count_seconds=0.0)
    assert room.mount.path == base.path
    volume = next(limit for limit in room.limits if limit.source == "volume size")
    assert volume.confidence is Confidence.ASSUMED
    assert "at least" in volume.note, "nothing was counted in no time"


def test_a_directory_that_one_may_not_write_to_has_no_room(open_path):
    shut = open_path / "shut"
    shut.mkdir()
    shut.chmod(0o555)
    if os.geteuid() != 0:
        assert headroom(shut, environ={}).bytes == 0
        return
    printed = as_nobody(
        IMPORTS + "room = headroom('.', environ={}); print(room.bytes, room.binding.source)", shut
    )
    assert printed == "0 permission\n"
    printed = as_nobody(
        "from gradience.errors import StorageError\n"
        "from gradience.storage.room.probe import probe\n"
        "import gradience.system.linux\n###\n"
        "try: probe('.', 10)\nexcept StorageError as error: print(error.remedy)",
        shut,
    )
    assert printed == "Name a directory that you may write to.\n"


@pytest.mark.root
def test_a_limit_that_is_no_size_is_named(tmp_path):
    refused = pytest.raises(UsageError, match="GRADIENCE_EPHEMERAL_STORAGE: 'lots'")
    with overlay(tmp_path / "merged") as place, refused:
        headroom(place, environ={"GRADIENCE_EPHEMERAL_STORAGE": "lots"})


@pytest.mark.root
def test_the_pods_limit_counts_in_the_containers_layer(tmp_path):
    with overlay(tmp_path / "merged") as place:
        (place / "file").write_bytes(os.urandom(2 * MB))
        room = headroom(place, environ={"GRADIENCE_EPHEMERAL_STORAGE": "10M"})
        assert room.binding.source == "ephemeral storage"
        assert room.bytes == pytest.approx(8 * MB, rel=0.01)
        assert "evicted" in room.binding.note


@pytest.mark.root
def test_on_tmpfs_exactly_the_promised_bytes_can_be_written(tmp_path):
    with tmpfs(tmp_path / "t", "size=8m,nr_inodes=200") as place:
        (place / "used").write_bytes(bytes(3 * 2**20))
        room = headroom(place, environ={})
        assert (room.bytes, room.inodes) == (5 * 2**20, 198)
        assert fill(place / "more", 9 * 2**20) == room.bytes
        assert headroom(place, environ={}).bytes == 0


@pytest.mark.root
def test_on_tmpfs_exactly_the_promised_number_of_files_can_be_made(tmp_path):
    with tmpfs(tmp_path / "t", "size=8m,nr_inodes=50") as place:
        room = headroom(place, environ={})
        for number in range(room.inodes):
            (place / str(number)).touch()
        with pytest.raises(OSError, match="No space left"):
            (place / "one more").touch()
        assert headroom(place, environ={}).inodes == 0
        refused = probe(place, 0)
        assert (refused.verdict, refused.error) == (Verdict.REFUSED, "ENOSPC")


@pytest.mark.root
def test_memory_limits_a_tmpfs_that_shows_more(tmp_path):
    with tmpfs(tmp_path / "t", "size=900g") as place:
        room = headroom(place, environ={})
        assert room.binding.source in ("memory", "memory limit")
        assert room.bytes < 900 * 2**30


@pytest.mark.root
def test_reserved_blocks_count_for_root_and_not_for_nobody(open_path):
    with ext4(open_path / "e", reserved_percent=20) as place:
        place.chmod(0o777)
        nobody = int(as_nobody(IMPORTS + "print(headroom('.', environ={}).bytes)", place))
        root = headroom(place, environ={}).bytes
        assert root - nobody == pytest.approx(0.2 * 64 * 2**20, rel=0.2)
        # The promise comes true, but for the blocks that the file's own map takes.
        assert fill(place / "all", 100 * MB) == pytest.approx(root, rel=0.005)


@pytest.mark.root
def test_a_read_only_mount_has_no_room(tmp_path):
    with tmpfs(tmp_path / "t", "size=8m,ro") as place:
        room = headroom(place, environ={})
        assert (room.bytes, room.binding.source) == (0, "read-only mount")
        with pytest.raises(GradienceError) as raised:
            probe(place, 10)
        assert raised.value.remedy


def largest_that_fits(place: Path, below: int) -> int:
    """By bisection: for a test on a small disk only, as it takes what it finds."""
    low, high = 0, below
    while high - low > 64 * 1024:
        middle = (low + high) // 2
        fits = probe(place, middle).verdict is Verdict.FITS
        low, high = (middle, high) if fits else (low, middle)
    return low


@pytest.mark.root
def test_the_probe_finds_the_quota_that_df_hides(tmp_path):
    with btrfs_with_quota(tmp_path / "b", 20 * 2**20) as sub:
        space = os.statvfs(sub)
        assert space.f_bavail * space.f_frsize > 100 * 2**20, "df shows the whole disk"
        found = largest_that_fits(sub, 64 * 2**20)
        assert found == pytest.approx(20 * 2**20, rel=0.05)
        refused = probe(sub, 30 * 2**20)
        assert (refused.verdict, refused.error) == (Verdict.REFUSED, "EDQUOT")
        assert list(sub.iterdir()) == []
        # As root, the quota group itself can be asked.
        room = headroom(sub, environ={})
        assert room.binding.source == "subvolume quota"
        assert room.bytes == pytest.approx(20 * 2**20, rel=0.01)
        assert room.confidence is Confidence.REPORTED


@pytest.mark.root
def test_on_xfs_half_of_the_room_fits_and_twice_the_room_does_not(tmp_path):
    with xfs(tmp_path / "x") as place:
        room = headroom(place, environ={})
        assert probe(place, room.bytes // 2).verdict is Verdict.FITS
        assert probe(place, 2 * room.bytes).verdict is Verdict.REFUSED
        assert list(place.iterdir()) == []
        written = fill(place / "big", 100 * MB)
        assert headroom(place, environ={}).bytes == pytest.approx(room.bytes - written, abs=MB)


@LINUX
def test_a_probe_leaves_nothing_and_takes_nothing(tmp_path):
    before = os.statvfs(tmp_path)
    result = probe(tmp_path / "later", 5 * MB)
    assert result.verdict in (Verdict.FITS, Verdict.UNPROVEN)
    assert result.path == tmp_path.resolve()
    assert list(tmp_path.iterdir()) == []
    after = os.statvfs(tmp_path)
    assert (before.f_bfree - after.f_bfree) * after.f_frsize < 10**9
    assert probe(tmp_path, 0).verdict is result.verdict


@LINUX
def test_more_than_there_is_is_refused_without_taking_it(tmp_path):
    began = time.monotonic()
    assert probe(tmp_path, 10**18).verdict is Verdict.REFUSED
    assert time.monotonic() - began < 1


@pytest.mark.root
def test_a_probe_does_not_hold_the_last_bytes(tmp_path):
    with btrfs_with_quota(tmp_path / "b", 10**9) as sub:
        space = os.statvfs(sub)
        result = probe(sub, space.f_bavail * space.f_frsize - 2**20)
        assert result.verdict is Verdict.UNPROVEN
        assert "others" in result.reason


@pytest.mark.parametrize("part", [0.91, 0.99, 1.0])
def test_a_probe_never_empties_the_real_disk(tmp_path, part):
    space = os.statvfs(tmp_path)
    free = space.f_bavail * space.f_frsize
    assert free - spare_bytes(free) < 0.905 * free, "and so the call below reserves nothing"
    assert probe(tmp_path, int(part * free)).verdict is not Verdict.FITS


@pytest.mark.root
def test_a_probe_of_a_memory_file_system_is_capped(tmp_path):
    with tmpfs(tmp_path / "t", "size=2g") as place:
        assert probe(place, 2**20).verdict is Verdict.FITS
        assert probe(place, 2**30).verdict is Verdict.UNPROVEN
        assert probe(place, 2**32).verdict is Verdict.REFUSED


@pytest.mark.root
def test_overlay_passes_the_question_on(tmp_path):
    with overlay(tmp_path / "merged") as place:
        assert probe(place, 5 * MB).verdict is Verdict.FITS
        assert list(place.iterdir()) == []


def test_where_a_reservation_proves_nothing_the_answer_says_so():
    result = probe("/proc", 5)
    assert result.verdict is Verdict.UNPROVEN


def test_a_negative_amount_is_refused(tmp_path):
    with pytest.raises(UsageError, match="-1"):
        probe(tmp_path, -1)


def test_usage_counts_blocks_once_and_stays_on_its_disk(tmp_path):
    (tmp_path / "a").mkdir()
    data = tmp_path / "a" / "data"
    data.write_bytes(os.urandom(MB))
    os.link(data, tmp_path / "b")
    (tmp_path / "link").symlink_to("a/data")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(10**9)
    own = used_below([tmp_path, tmp_path / "a", tmp_path / "missing"], seconds=10)
    listed = [tmp_path, *tmp_path.rglob("*")]
    by_inode = {p.lstat().st_ino: p.lstat().st_blocks * 512 for p in listed}
    assert (own.bytes, own.inodes, own.complete) == (sum(by_inode.values()), len(by_inode), True)
    assert not used_below([tmp_path], seconds=-1).complete


def test_the_shortest_limit_binds_and_absent_ones_do_not():
    def limit(source: str, size: int | None, inodes: int | None) -> Limit:
        return Limit(
            source=source, bytes=size, inodes=inodes, confidence=Confidence.REPORTED, note="n."
        )

    mount = Mount(path=Path("/"), device="d", fs_type="x")
    limits = (limit("a", 5, None), limit("b", None, 3), limit("c", 0, 9))
    room = Headroom(path=Path("/"), mount=mount, limits=limits)
    assert (room.bytes, room.binding.source) == (0, "c")
    assert (room.inodes, room.binding_inodes.source) == (3, "b")
    empty = Headroom(path=Path("/"), mount=mount, limits=())
    assert (empty.bytes, empty.inodes, empty.binding) == (None, None, None)
    assert "not known" in empty.sentence


def test_the_preload_shim_makes_the_probe_refuse(tmp_path):
    """Everywhere gcc is: a byte budget for one directory, without privileges."""
    source = SHARED / "tools" / "quota_preload.c"
    if not source.exists():
        pytest.skip("the shared tools are not beside this checkout")
    library = tmp_path / "shim.so"
    try:
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"], check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("there is no gcc")
    place = tmp_path / "limited"
    place.mkdir()
    if probe(place, 1).verdict is not Verdict.FITS:
        pytest.skip("the temporary directory is on a file system where a probe proves nothing")
    program = (
        "import json, sys; from gradience.storage.room.probe import probe\n"
        "print(json.dumps([[r.verdict, r.error] for r in (probe(sys.argv[1], n) "
        "for n in (2_000_000, 30_000_000))]))"
    )
    environ = os.environ | {
        "LD_PRELOAD": str(library),
        "QB_DIR": str(place),
        "QB_BYTES": "20000000",
        "QB_STATE": str(tmp_path / "state"),
    }
    done = subprocess.run(
        [sys.executable, "-c", program, str(place)], capture_output=True, env=environ, check=True
    )
    assert json.loads(done.stdout) == [["fits", ""], ["refused", "EDQUOT"]]


@pytest.mark.root
def test_a_volume_that_shows_its_clusters_space_is_unproven_and_the_given_size_binds(tmp_path):
    need("fusermount")
    pytest.importorskip("mfusepy", reason="pip install mfusepy", exc_type=ImportError)
    tool = SHARED / "tools" / "quotafs.py"
    if not tool.exists() or not Path("/dev/fuse").exists():
        pytest.skip("needs the shared tools and /dev/fuse")
    source, place = tmp_path / "source", tmp_path / "workspace"
    source.mkdir()
    place.mkdir()
    server = subprocess.Popen(
        [sys.executable, str(tool), str(source), str(place), "20000000"],
        stderr=subprocess.PIPE,
    )
    try:
        for _ in range(100):
            if os.path.ismount(place):
                break
            if server.poll() is not None:
                pytest.skip(f"FUSE does not start: {server.stderr.read().decode()[-200:]}")
            time.sleep(0.05)
        blind = headroom(place, environ={})
        assert blind.bytes > 10**12, "the cluster's terabytes"
        assert blind.confidence is Confidence.ASSUMED
        assert "GRADIENCE_VOLUME_SIZE" in blind.binding.note
        assert probe(place, 30 * MB).verdict is Verdict.UNPROVEN
        # The tool looks at its quota at every 16th write of 4 KiB: fill in multiples of that.
        (place / "used").write_bytes(os.urandom(76 * 2**16))
        room = headroom(place, environ={"GRADIENCE_VOLUME_SIZE": "20MB"})
        assert room.binding.source == "volume size"
        assert room.bytes == pytest.approx(20 * MB - 76 * 2**16, rel=0.01)
        assert fill(place / "rest", 40 * MB) == pytest.approx(room.bytes, rel=0.1)
    finally:
        subprocess.run(["fusermount", "-uz", str(place)], check=False)
        server.kill()
        server.wait()
        server.stderr.close()
