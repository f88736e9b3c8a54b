"""Whose base is it? Names and shapes decide where they can, and where they cannot it is said."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from factories_bases import decoder_shapes, facts, layers_of, write_base
from gradience.adapter.records import Adapter
from gradience.audit.norms.records import Unreadable
from gradience.audit.norms.which import KnownBase, in_norms_cache, opened, rank


def adapter(shapes: Mapping[str, tuple[int, ...]], **rest: Any) -> Adapter:
    return Adapter(source="run", files=(), dialect="peft", layers=tuple(layers_of(shapes)), **rest)


def known(model: str, shapes: Mapping[str, tuple[int, ...]], **rest: Any) -> KnownBase:
    values: dict[str, Any] = {
        "revision": None,
        "fingerprint": f"blake3:{model}",
        "tied": None,
        "known_from": ("named",),
        **rest,
    }
    return KnownBase(model=model, tensors=facts(shapes), **values)


def test_the_only_one_that_fits_is_the_answer() -> None:
    found = rank(
        adapter(decoder_shapes()),
        [known("wide", decoder_shapes(hidden=32)), known("right", decoder_shapes())],
    )
    assert found.outcome == "one"
    assert found.candidates[0].model == "right"
    assert found.candidates[0].fits == found.modules
    assert "shape" in found.candidates[1].why_not


def test_two_of_the_same_names_and_shapes_cannot_be_told_apart() -> None:
    found = rank(
        adapter(decoder_shapes()), [known("a", decoder_shapes()), known("b", decoder_shapes())]
    )
    assert (found.outcome, found.alike) == ("several", 2)
    first, second = found.candidates
    assert first.signature == second.signature != ""


def test_a_recorded_name_ranks_first_and_does_not_pretend_to_tell() -> None:
    found = rank(
        adapter(decoder_shapes(), base_model="org/b"),
        [known("org/a", decoder_shapes()), known("org/b", decoder_shapes())],
    )
    assert [c.model for c in found.candidates] == ["org/b", "org/a"]
    assert found.candidates[0].recorded
    assert found.outcome == "several"


def test_a_base_of_as_many_blocks_is_likelier_than_a_deeper_one() -> None:
    found = rank(
        adapter(decoder_shapes(layers=2)),
        [known("deep", decoder_shapes(layers=3)), known("right", decoder_shapes(layers=2))],
    )
    assert found.outcome == "one"
    assert [c.model for c in found.candidates] == ["right", "deep"]
    assert found.candidates[1].coverage == pytest.approx(2 / 3)


def test_none_fits_is_said() -> None:
    found = rank(adapter(decoder_shapes()), [known("wide", decoder_shapes(hidden=32))])
    assert (found.outcome, found.alike) == ("none", 0)
    assert rank(adapter(decoder_shapes()), []).outcome == "none"


def test_one_base_known_from_two_places_is_one() -> None:
    places = [known("org/a", decoder_shapes(), known_from=(place,)) for place in ("cache", "named")]
    found = rank(adapter(decoder_shapes()), places)
    assert found.outcome == "one"
    assert found.candidates[0].known_from == ("cache", "named")


def test_of_two_names_of_one_base_the_recorded_one_is_shown() -> None:
    names = [
        known(name, decoder_shapes(), fingerprint="blake3:one")
        for name in ("model", "org/base", "z")
    ]
    for order in (names, names[::-1]):
        (found,) = rank(adapter(decoder_shapes(), base_model="org/base"), order).candidates
        assert (found.model, found.recorded) == ("org/base", True)


def test_a_damaged_file_of_norms_is_told_and_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    write_base(tmp_path / "base", decoder_shapes())
    candidates = [*in_norms_cache(tmp_path), opened(str(tmp_path / "base"), known_from="named")]
    found = rank(adapter(decoder_shapes()), candidates)
    assert isinstance(candidates[0], Unreadable)
    assert [odd.name for odd in found.unreadable] == ["bad.json"]
    assert found.outcome == "one"
