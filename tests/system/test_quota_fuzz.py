"""Whatever a tool prints, its parser answers: a quota must never fail the caller."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradience.errors import UsageError
from gradience.system import QuotaLimit
from gradience.system.kubernetes import ephemeral_limit
from gradience.system.linux import parse_mountinfo
from gradience.system.macos import parse_mount
from gradience.system.quota import beegfs, btrfs, gpfs, lustre, nfs

WORDS = """
Filesystem kbytes 0 12 [7] 9* none - unlimited \u00b2 \u0663 0/256 HEADER : , / fs mmlsquota (rw) on
Disk quotas for user me (uid 500): 99999999999999999999 4294967296:1
"""
words = st.sampled_from([*WORDS.split(), "\n"])
outputs = st.one_of(
    st.text(max_size=200),
    st.lists(words, max_size=40).map(" ".join),
    st.lists(words, max_size=40).map(":".join),
    st.lists(words, max_size=40).map(",".join),
)


@given(outputs)
def test_parsers_of_quota_tools_answer_anything(output):
    found = [
        lustre.parse(output, scope="user", name="500"),
        nfs.parse(output, device="fs", scope="user", owner=500),
        *gpfs.parse(output, "fs"),
        *beegfs.parse(output, scope="user", owner=12),
        *btrfs.parse(output),
    ]
    for limit in found:
        assert limit is None or isinstance(limit, QuotaLimit)
        if limit is not None and limit.free_bytes is not None:
            assert limit.free_bytes >= 0
    assert isinstance(lustre.parse_project(output), str)


@given(outputs)
def test_mount_tables_of_any_shape_are_read(output):
    for mount in (*parse_mountinfo(output), *parse_mount(output)):
        assert isinstance(mount.path, Path)


numbers = st.integers(0, 10**12).map(str)
fields = st.one_of(numbers, st.sampled_from(("/", "rw", "ext4", "8:1", "99999999999999:1", "a:b")))


@given(st.lists(fields, min_size=6, max_size=8), st.lists(fields, min_size=2, max_size=4))
def test_a_line_of_mountinfo_with_odd_fields_is_read_or_left_out(left, right):
    assert len(parse_mountinfo(" ".join(left) + " - " + " ".join(right))) in (0, 1)


@given(st.text(max_size=20).filter(lambda t: not t.strip().startswith("/")))
def test_a_quantity_is_read_or_refused_with_a_remedy(text):
    with contextlib.suppress(UsageError):
        assert ephemeral_limit(text) >= 0


def test_a_quantity_beyond_all_disks_is_refused():
    with pytest.raises(UsageError):
        ephemeral_limit("1e999")
