"""What a person writes: read by one rule, wherever it is written."""

from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from gradience.configs.document import parse, read_document
from gradience.configs.read import as_record, read_mapping
from gradience.errors import UsageError
from gradience.storage.change.policy import Policy
from gradience.storage.outside.policy import PolicyFile
from gradience.storage.preflight.settings import RunSettings

RECORDS: tuple[tuple[type[msgspec.Struct], str, str], ...] = (
    (PolicyFile, "stop_bellow: 1GB\ngrace: [1]\n", "stop_below"),
    (RunSettings, "save_step: 5\nothers: [{what: x, path: y, bites: 1}]\n", "save_steps"),
    (Policy, "rules: [{idle: 30d}, {idel: 30d}]\nmin-agee: 1h\n", "min-age"),
)


@pytest.mark.parametrize(("kind", "text", "meant"), RECORDS, ids=[k.__name__ for k, *_ in RECORDS])
def test_every_mistake_of_a_file_is_told_at_once_with_line_and_what_was_meant(
    tmp_path: Path, kind: type[msgspec.Struct], text: str, meant: str
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"x\.yaml has \d problems") as error:
        as_record(read_document(path, remedy="r"), kind, source=str(path), remedy="r")
    told = "\n".join(error.value.details)
    assert f"did you mean {meant!r}?" in told
    assert "line 1, $." in told
    assert "line 2, $." in told


def test_the_same_settings_are_the_same_in_each_form(tmp_path: Path) -> None:
    texts = {
        "x.yaml": "rules: [{idle: 30d, keep-last: 1}]",
        "x.toml": '[[rules]]\nidle = "30d"\nkeep-last = 1\n',
        "x.json": '{"rules": [{"idle": "30d",\t"keep-last": 1}]}',
    }
    read = []
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        document = read_document(tmp_path / name, remedy="r")
        read.append(as_record(document, Policy, source=name, remedy="r"))
    assert read[0] == read[1] == read[2]
    assert read[0].rules[0].keep_last == 1


def test_a_number_is_a_number_and_a_key_stands_once() -> None:
    assert parse("a: 1e-4\nb: -.5e3", "x").data == {"a": 1e-4, "b": -500.0}
    with pytest.raises(UsageError, match=r"x, line 2: \$\.a stands twice; first in line 1"):
        parse("a: 1\na: 2", "x")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.yaml", b"a: [1", "is not YAML"),
        ("x.yaml", b"[" * 5000, "is not YAML"),
        ("x.json", b"{", "is not JSON"),
        ("x.json", b'{"r": 8, "r": 16}', "the key 'r' stands twice"),
        ("x.toml", b"= 1", "is not TOML"),
        ("x.yaml", b"\xff\xfe", "is not text"),
        ("x.yaml", b"- 1", "holds no mapping"),
        ("x.yaml", b"!!python/object/apply:os.system [exit]", "is not YAML"),
        ("x.yaml", b"#" * (2**20 + 1), "larger than 1 MiB"),
    ],
)
def test_a_file_that_is_no_config_is_named(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=told) as error:
        read_mapping(tmp_path / name, remedy="what to do")
    assert str(tmp_path / name) in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml cannot be read: No such file"):
        read_document(tmp_path / "none.yaml", remedy="r")


_ODD = ["? [a]\n: b", "a: 2024-13-45", "a: 0x_", "!!int x", "!!int ''", "!!bool x", "!!float ''"]
_ODD += ["!!timestamp x", "\0", "a: &x [*x]", "&x {*x : 1}", "!!set [a]", "!!omap {a: 1}", "<<: 1"]
_ODD += ["a: !!binary x", "? !!seq x\n: 1", "!!null x: 1", "[1:" + "1:" * 4000 + "1]", "9" * 5000]


@pytest.mark.parametrize("text", _ODD)
def test_what_yaml_allows_and_no_config_says_is_an_error_that_names_the_file(text: str) -> None:
    _document_or_usage_error(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: 2024-13-45", r"'2024-13-45' is no timestamp.* line 2"),
        ("a: 1\nb: 0x_", r"'0x_' is no int.* line 2"),
        ("a: 1\n? [a]\n: b", r"x, line 2: a key of \$ is a list or a mapping"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse(text, "x")


@pytest.mark.parametrize(
    ("first", "second", "means"),
    [("1", "on", "True"), ("yes", "true", "True"), ("0x10", "16", "16"), ("1", "1.0", "1.0"),
     ("~", "null", "None")],
)  # fmt: skip
def test_two_keys_that_are_one_to_python_are_refused_with_both_lines(
    first: str, second: str, means: str
) -> None:
    text = f"a:\n  {first}: x\n  b: y\n  {second}: z\n"
    told = rf"line 4: \$\.a\.{second}, read as {means}, is the key \$\.a\.{first} of line 2 again"
    with pytest.raises(UsageError, match=told):
        parse(text, "x")
    quoted = f"a:\n  '{first}': x\n  b: y\n  '{second}': z\n"
    assert set(parse(quoted, "x").data["a"]) == {first, "b", second}


@pytest.mark.parametrize("form", ["[{x},{x},{x},{x}]", "{{b: {x}, c: {x}, d: {x}}}"])
def test_aliases_that_stand_for_billions_of_values_are_refused_at_once(form: str) -> None:
    laughs = ["a0: &a0 {x: 1}"]
    laughs += [f"a{i}: &a{i} " + form.format(x=f"*a{i - 1}") for i in range(1, 40)]
    with pytest.raises(UsageError, match=r"x, line \d+: its aliases and keys stand for more"):
        parse("\n".join(laughs), "x")


def test_merged_keys_that_double_are_refused_at_once() -> None:
    merges = ["a0: &a0 {x: 1}"]
    merges += [f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 60)]
    with pytest.raises(UsageError, match="stand for more values"):
        parse("\n".join(merges), "x")


@pytest.mark.parametrize(
    "text",
    ["[" + "1," * 500_000 + "]", "? " + "k" * 400_000 + "\n: [" + "1," * 9000 + "]"],
    ids=["many", "long"],
)
def test_more_than_a_config_has_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"more (than 20000 )?values"):
        parse(text, "x")


def test_an_alias_is_what_it_stands_for() -> None:
    text = "a: &a {rank: 8}\nb: *a\nc:\n  <<: *a\n  alpha: 1e-1"
    document = parse(text, "x")
    assert document.data == {"a": {"rank": 8}, "b": {"rank": 8}, "c": {"rank": 8, "alpha": 0.1}}
    assert document.lines["$.b"] == 2


_WORDS = [
    *"[]{}:,&*!?|>-#'\"%@`~= \n\t\0\r\x85\ufeff",
    "a",
    "b: ",
    "- ",
    "\n  ",
    "null",
    "...",
    "---\n",
]
_WORDS += ["&a ", "*a", "<<: ", "? ", "!!", "!!int ", "!!timestamp ", "!!set ", "!!binary ", "!<"]
_WORDS += ["tag:yaml.org,2002:", "%YAML 9.9\n", "0x_", "0b", "1_", "1:59", "2024-13-45", "..."]


@given(st.one_of(st.text(), st.lists(st.sampled_from(_WORDS), max_size=30).map("".join)))
@example("&a [*a]")
def test_any_text_is_a_document_or_an_error_that_names_it(text: str) -> None:
    _document_or_usage_error(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_what_yaml_writes_is_read_as_it_was(data: object) -> None:
    assert parse(yaml.safe_dump({"a": data}), "x").data == {"a": data}


def _document_or_usage_error(text: str) -> None:
    told = "x.yaml"
    try:
        parse(text, "x.yaml")
    except UsageError as error:
        told = str(error)
    assert told.startswith("x.yaml")
