"""Every verb, killed before and after each thing that it does to a disk: nothing is ever lost."""

import itertools
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from factories_disks import btrfs_with_quota, ext4, fuse_without_locks, second_disk, tmpfs
from factories_kills import CHANGES, killed_at

DISKS = {
    "tmpfs": lambda where: tmpfs(where, "size=64m"),
    "btrfs": lambda where: btrfs_with_quota(where, 2**27),
    "ext4": ext4,
    "fuse": lambda where: fuse_without_locks(where, ""),
}
EVERY = {"here": 1, "tmpfs": 4, "btrfs": 4, "ext4": 4, "fuse": 8}
"""Each step, or one of so many: a verb does the same on all, what comes of it need not be."""
SIDE_BY_SIDE = 8
SECONDS = 120
"""A step takes half of one; a server of a file system that no longer answers ends the test."""


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    """Processes of their own: much of a clean is waiting for those who waited for a lock."""
    with ProcessPoolExecutor(SIDE_BY_SIDE, multiprocessing.get_context("spawn")) as made:
        yield made


@pytest.fixture(
    scope="module",
    params=["here", *(pytest.param(kind, marks=pytest.mark.root) for kind in DISKS)],
)
def disk(request, tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """A file system of each kind, mounted once."""
    near = tmp_path_factory.mktemp("disk")
    with ExitStack() as mounted:
        if request.param != "here":
            near = mounted.enter_context(DISKS[request.param](near / request.param))
        yield request.param, near


@pytest.fixture(scope="module")
def far() -> Iterator[Path]:
    """A directory on another disk."""
    with second_disk() as directory:
        yield directory


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_killed_at_any_step_nothing_is_lost_and_the_next_command_ends_it(pool, disk, far, change):
    kind, near = disk
    steps = itertools.count(0, EVERY[kind])
    while True:
        some = list(itertools.islice(steps, 2 * SIDE_BY_SIDE))
        asked = [pool.submit(killed_at, step, change, near, far) for step in some]
        # None works on when its disk is gone.
        came_so_far = [step.result(SECONDS) for step in asked]
        if not all(came_so_far):
            break
    assert some[-1] > 8
