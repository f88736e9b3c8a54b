"""The files of `gradience norms` stay readable: one for each schema, never edited."""

from pathlib import Path
from typing import TypeVar

import pytest

from gradience import artifacts
from gradience.audit.base.norms_file import NormsFile, believable, decode
from gradience.audit.norms import travel
from gradience.audit.norms.records import (
    KEPT_SCHEMA,
    LIST_SCHEMA,
    MATCH_SCHEMA,
    VERIFY_SCHEMA,
    BaseMatch,
    Kept,
    NormsList,
    Verification,
)

HERE = Path(__file__).parent


T = TypeVar("T")


def read(name: str, schema: str, kind: type[T]) -> T:
    path = HERE / name
    return artifacts.decode(path.read_bytes(), schema, kind, source=name)


def test_exported_norms_are_still_believed() -> None:
    given = travel.fetch(HERE / "base_norms.v1.json")
    assert len(given.norms) == 40
    assert given.content.tensors["embeddings.word_embeddings.weight"].shape == (30522, 384)
    assert given.norms["embeddings.word_embeddings.weight"].lower == pytest.approx(28.721, abs=1e-3)


def test_norms_from_before_the_file_knew_the_tensors_are_still_read() -> None:
    path = HERE / "base_norms.v1.json"
    old = path.read_bytes().partition(b',"tensors":')[0] + b"}}"
    content = decode(old, source="old")
    assert isinstance(content, NormsFile)
    assert (content.tensors, content.tied) == ({}, None)
    assert believable(content.norms) == believable(decode(path.read_bytes(), source="new").norms)


def test_lists_checks_and_matches_are_still_read() -> None:
    listed = read("norms_list.v1.json", LIST_SCHEMA, NormsList)
    assert [entry.weights for entry in listed.entries] == [40]
    checked = read("norms_verify.v1.json", VERIFY_SCHEMA, Verification)
    assert checked.numbers_agree
    assert checked.same_base
    assert sum(one.proved is True for one in checked.checked) == 2
    kept = read("norms_kept.v1.json", KEPT_SCHEMA, Kept)
    assert (kept.weights, kept.unchecked) == (40, 32)
    assert kept.verification is not None
    assert len(kept.verification.checked) == 8
    matched = read("norms_match.v1.json", MATCH_SCHEMA, BaseMatch)
    assert (matched.outcome, matched.candidates[0].fits) == ("one", 18)
