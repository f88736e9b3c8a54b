"""Cores are those that this process may use, not those that the machine has."""

import os
from pathlib import Path

import pytest

from gradience.system.cpus import usable_cores


@pytest.mark.parametrize(
    ("quota", "most"),
    [("max 100000", 10**6), ("100000 100000", 1), ("50000 100000", 1), ("150000 100000", 1)],
)
def test_the_quota_of_a_container_counts(tmp_path: Path, quota: str, most: int) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    assert 1 <= usable_cores(tmp_path) <= most


def test_without_a_cgroup_affinity_counts(tmp_path: Path) -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity")
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores(tmp_path) == 1
    finally:
        os.sched_setaffinity(0, before)
