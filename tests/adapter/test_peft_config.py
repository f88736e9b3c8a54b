"""adapter_config.json: what is read, what is tolerated, and one error for everything else."""

import json
import os
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradience.adapter.config import AdapterConfig, parse_config
from gradience.adapter.peft_types import READ_TYPES, UNREAD_TYPES
from gradience.adapter.read import read_config
from gradience.errors import AdapterConfigError, GradienceError, UnsupportedAdapterError

GOOD = {"peft_type": "LORA", "r": 8, "lora_alpha": 16}


def parse(**changes):
    return parse_config(json.dumps(GOOD | changes).encode(), "run/adapter_config.json")


def test_a_config_as_peft_writes_it():
    peft = pytest.importorskip("peft")
    written = peft.LoraConfig(
        r=4,
        lora_alpha=10,
        use_rslora=True,
        target_modules=["q_proj"],
        rank_pattern={"q": 2},
        alpha_pattern={"q": 3},
        modules_to_save=["score"],
        base_model_name_or_path="org/base",
        revision="abc",
    ).to_dict()
    text = json.dumps(written, default=lambda x: sorted(x) if isinstance(x, set) else str(x))
    found = parse_config(text.encode(), "x")
    assert (found.r, found.alpha, found.use_rslora, found.use_dora) == (4, 10.0, True, False)
    assert (found.rank_of("layers.q"), found.alpha_of("layers.q")) == (2, 3.0)
    assert (found.rank_of("layers.k"), found.alpha_of("layers.k")) == (4, 10.0)
    assert found.modules_to_save == ("score",)
    assert (found.base_model, found.base_revision) == ("org/base", "abc")
    assert found.raw["task_type"] is None


def test_nulls_and_keys_of_other_releases_are_fine():
    keys = {"rank_pattern", "alpha_pattern", "use_rslora", "modules_to_save", "bias", "revision"}
    keys |= {"target_parameters", "enable_lora", "init_lora_weights", "target_modules"}
    nulls = dict.fromkeys(keys)
    found = parse(**nulls, key_of_the_year_2030={"a": [1]})
    assert (found.rank_pattern, found.modules_to_save, found.bias) == ({}, (), "none")


def test_lists_may_be_one_name_and_targets_one_pattern():
    found = parse(modules_to_save="score", target_modules=".*attn.*")
    assert (found.modules_to_save, found.target_modules) == (("score",), ".*attn.*")


def test_each_type_has_its_own_names_for_rank_and_alpha():
    ada = parse_config(b'{"peft_type": "ADALORA", "r": 8, "init_r": 12, "lora_alpha": 3}', "x")
    loha = parse_config(b'{"peft_type": "LOHA", "r": 4, "alpha": 2, "lora_alpha": 99}', "x")
    assert (ada.r, ada.alpha) == (12, 3.0)
    assert (loha.r, loha.alpha) == (4, 2.0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("r", "8"),
        ("r", 0),
        ("r", -1),
        ("r", 1e9),
        ("r", 8.0),
        ("r", True),
        ("r", [8]),
        ("r", 10**30),
        ("lora_alpha", "16"),
        ("lora_alpha", float("nan")),
        ("lora_alpha", float("inf")),
        ("lora_alpha", 10**400),
        ("lora_alpha", True),
        ("use_rslora", "true"),
        ("use_dora", 1),
        ("bias", "some"),
        ("rank_pattern", [1]),
        ("rank_pattern", {"a": "8"}),
        ("rank_pattern", {"a": 0}),
        ("alpha_pattern", {"a": None}),
        ("modules_to_save", [1]),
        ("target_modules", 5),
        ("target_parameters", {"a": 1}),
        ("enable_lora", [1, 0]),
        ("init_lora_weights", 3),
        ("base_model_name_or_path", 3),
        ("peft_type", None),
        ("peft_type", 7),
        ("peft_type", "NO_SUCH_TYPE"),
    ],
)
def test_a_value_that_cannot_be_meant_is_named(key, value):
    raw = GOOD | {key: value}
    if value is None:
        raw = {key: value}
    with pytest.raises(AdapterConfigError) as error:
        parse_config(json.dumps(raw).encode(), "run/adapter_config.json")
    assert "run/adapter_config.json" in str(error.value)
    assert key in str(error.value)
    assert len(str(error.value)) < 300
    assert error.value.remedy


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "holds list"),
        (b"null", "holds NoneType"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a":' * 100_000, "not JSON"),
        (b'{"r": ' + b"9" * 10_000 + b"}", "not JSON"),
        (b'{"r": 8, "r": 16}', "'r' occurs twice"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
    ],
)
def test_a_file_that_is_no_config_is_one_error(content, message):
    with pytest.raises(AdapterConfigError, match=message):
        parse_config(content, "here")


def test_a_byte_order_mark_is_no_error():
    assert parse_config(b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), "x").r == 8


@pytest.mark.parametrize(
    "key",
    ["(", "(a+)+b" + "c" * 3000, r"(a)\1", "(?i)q", "(?=x)q", "((((((a*)*)*)*)*)*)", "[", "a**"],
)
def test_a_pattern_that_cannot_be_matched_safely_is_refused(key):
    with pytest.raises(AdapterConfigError, match=r"adapter_config\.json: the key"):
        parse(rank_pattern={key: 4})


@pytest.mark.parametrize("name", sorted(UNREAD_TYPES))
def test_a_type_that_is_not_read_says_why(name):
    with pytest.raises(
        UnsupportedAdapterError, match=f"x: adapters of type {name} cannot be .+: .+"
    ):
        parse_config(json.dumps({"peft_type": name}).encode(), "x")


def test_every_type_of_the_installed_peft_is_known():
    peft = pytest.importorskip("peft")
    known = {*READ_TYPES, *UNREAD_TYPES}
    assert {str(t.value) for t in peft.PeftType} <= known


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(AdapterConfigError, match=r"missing\.json does not exist"):
        read_config(tmp_path / "missing.json")
    with pytest.raises(AdapterConfigError, match="is a directory, not a file to read"):
        read_config(tmp_path)
    huge = tmp_path / "huge.json"
    huge.touch()
    os.truncate(huge, 2**27)
    with pytest.raises(AdapterConfigError, match="larger than"):
        read_config(huge)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)
KEYS = [*sorted(AdapterConfig.__struct_fields__), "lora_alpha", "peft_type", "init_r"]


@given(
    st.sampled_from([*READ_TYPES, "LORA"]),
    st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4),
)
def test_any_json_is_a_config_or_one_error(peft_type, changes):
    with suppress(GradienceError):
        found = parse_config(json.dumps({"peft_type": peft_type} | changes).encode(), "x")
        assert found.rank_of("a.b") is None or found.rank_of("a.b") > 0
        assert isinstance(found.alpha_of("a.b"), float)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_config_or_one_error(content):
    with pytest.raises(GradienceError):
        parse_config(content, "x")
