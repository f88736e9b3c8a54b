"""Our pattern matching is PEFT's, and no pattern takes long."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradience.adapter.patterns import check_patterns, pattern_value
from gradience.errors import AdapterConfigError

ATOMS = st.sampled_from(["a", "b", r"\.", ".", r"\d", r"[a-c]", r"[^.]", r"\w", "0", "_", "q_proj"])
REPEATS = st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,3}", "*?", "{0,2}"])


def joined(inner):
    return st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda x: f"({'|'.join(x)})"),
        st.tuples(inner, REPEATS).map(lambda x: f"(?:{x[0]}){x[1]}"),
    )


PATTERNS = st.recursive(st.tuples(ATOMS, REPEATS).map("".join), joined, max_leaves=6)
NAMES = st.text("ab.0q_proj", max_size=12)


def pefts(keys, name, default):
    """peft.utils.other.get_pattern_key, and what PEFT does with its answer."""
    for key in keys:
        if re.match(rf"(.*\.)?({key})$", name):
            return keys[key]
    return default


@given(st.lists(PATTERNS, max_size=3, unique=True), NAMES)
def test_the_first_key_that_peft_matches_decides(keys, name):
    pattern = {key: number for number, key in enumerate(keys)}
    try:
        check_patterns(pattern, "x")
    except AdapterConfigError:
        return
    assert pattern_value(pattern, name, -1) == pefts(pattern, name, -1)


@pytest.mark.parametrize(
    "name", ["layers.1.q_proj", "layers.11.q_proj", "xlayers.1.q_proj", "q_proj", "layers-1.q_proj"]
)
@pytest.mark.parametrize(
    "key",
    ["q_proj", "layers.1.q_proj", "1.q_proj", "proj", "^layers.1", "^q_proj", "q_proj|layers.1.x"],
)
def test_plain_names_match_as_peft_matches_them(key, name):
    assert pattern_value({key: 1}, name, 0) == pefts({key: 1}, name, 0)


def test_the_installed_peft_has_this_rule():
    other = pytest.importorskip("peft.utils.other")
    keys = {"b.q": 1, r"a\..*": 2}
    for name in ("a.b.q", "a.c", "b.q", "xb.q"):
        assert keys.get(other.get_pattern_key(keys, name)) == pattern_value(keys, name, None)


@pytest.mark.parametrize("key", [r"(a|a)*b", r"(a*)*b", r"(.*)*(.*)*(.*)*x", r"(a?){60}a{60}b"])
def test_no_pattern_takes_exponential_time(key):
    started = time.perf_counter()
    assert pattern_value({key: 1}, "a" * 400, 0) == 0
    assert time.perf_counter() - started < 5  # Python's own engine does not end in a lifetime
