"""Artifacts: what was written can be read, and what cannot is named."""

from datetime import UTC, datetime

import msgspec
import pytest

from gradience import artifacts
from gradience.errors import ArtifactError, ExitCode

NOW = datetime(2026, 11, 23, tzinfo=UTC)


class Content(msgspec.Struct, frozen=True):
    name: str
    size: int = 0


def test_what_was_written_can_be_read() -> None:
    data = artifacts.encode("gradience.test/v1", Content("a", 3), now=NOW)
    assert artifacts.decode(data, "gradience.test/v1", Content, source="x") == Content("a", 3)
    assert b'"written_at": "2026-11-23T00:00:00+00:00"' in data


def test_a_key_from_a_newer_minor_release_is_tolerated() -> None:
    data = artifacts.encode("gradience.test/v1", {"name": "a", "colour": "red"}, now=NOW)
    assert artifacts.decode(data, "gradience.test/v1", Content, source="x").name == "a"


def test_a_newer_schema_is_refused_by_name() -> None:
    data = artifacts.encode("gradience.test/v2", {}, now=NOW)
    with pytest.raises(ArtifactError, match=r"x\.json has schema 'gradience\.test/v2'") as caught:
        artifacts.decode(data, "gradience.test/v1", Content, source="x.json")
    assert "pip install -U" in caught.value.remedy
    assert caught.value.exit_code == ExitCode.UNREADABLE


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"schema": 1}', b"\xff\xfe", b"[" * 100_000], ids=repr
)
def test_garbage_is_an_error_that_names_the_file(data: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"x\.json"):
        artifacts.decode(data, "gradience.test/v1", Content, source="x.json")


@pytest.mark.parametrize("content", [{"name": 3}, {"size": 1}, {"name": "a", "size": "3"}, None])
def test_content_of_another_shape_is_refused(content) -> None:
    data = artifacts.encode("gradience.test/v1", content, now=NOW)
    with pytest.raises(ArtifactError):
        artifacts.decode(data, "gradience.test/v1", Content, source="x")
