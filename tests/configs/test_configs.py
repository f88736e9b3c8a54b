"""What a person writes: read by one rule, wherever it is written."""

from pathlib import Path

import msgspec
import pytest

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
        ("x.toml", b"= 1", "is not TOML"),
        ("x.yaml", b"\xff\xfe", "is not text"),
        ("x.yaml", b"- 1", "holds no mapping"),
        ("x.yaml", b"!!python/object/apply:os.system [exit]", "is not YAML"),
        ("x.yaml", b"#" * (2**24 + 1), "larger than 16 MiB"),
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
