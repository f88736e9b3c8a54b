"""An adapter made by PEFT on any transformers architecture finds its base tensors.

Held against live models: for each adapted module, the tensor that is found in the saved checkpoint
has the numbers of the weight that PEFT adapts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from factories_architectures import (
    ARCHITECTURES,
    Adapted,
    adapt,
    adapted_weights,
    quiet,
    save_base,
    tiny_model,
)
from gradience.adapter.read import opened
from gradience.adapter.source import find_adapters
from gradience.audit.base.match import match
from gradience.audit.base.rows import rows
from gradience.audit.base.source import open_base
from gradience.audit.base.weights import Matches


def matched(adapted: Sequence[Adapted], base_dir: Path) -> Matches:
    """Match the layers, and check every number of what was found."""
    with open_base(base_dir) as base:
        matches = match([a.layer for a in adapted], base.tensors, tied=base.tied)
        for one in adapted:
            if one.layer.label in matches.found:
                weight = matches.found[one.layer.label]
                stored = rows(base, weight)
                got = np.concatenate([np.asarray(block) for block in stored.blocks(5)])
                assert weight.shape == one.layer.shape == stored.shape
                np.testing.assert_array_equal(got, one.weight(), err_msg=one.layer.label)
    return matches


def both_bases(model: Any, root: Path) -> tuple[Path, Path]:
    """The model saved with its head and without."""
    bare = model.base_model if model.base_model_prefix else model
    return save_base(model, root / "with_head"), save_base(bare, root / "bare")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_module_of_a_saved_adapter_finds_its_tensor(name: str, tmp_path: Path) -> None:
    model = tiny_model(name)
    with_head, bare = both_bases(model, tmp_path)
    inside = {p.data_ptr() for p in model.base_model.parameters()}
    peft_model = adapt(model, target_parameters=ARCHITECTURES[name].target_parameters)
    with quiet():
        peft_model.save_pretrained(tmp_path / "adapter")
    live = {one.layer.label: one for one in adapted_weights(peft_model)}
    (location,) = find_adapters(tmp_path / "adapter")
    with opened(location) as adapter:
        adapted = [Adapted(layer, live.pop(layer.label).weight) for layer in adapter.layers]
    assert adapted
    assert live == {}
    assert matched(adapted, with_head).unmatched == {}

    # The bare model lacks the head, and nothing else; a tied head is its embedding.
    unmatched = matched(adapted, bare).unmatched
    assert unmatched.keys() == {
        one.layer.label
        for one in adapted
        if one.layer.expert is None and one.weight().ctypes.data not in inside
    }
    assert {u.reason for u in unmatched.values()} <= {"no_tensor"}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_adapter_of_the_bare_model_finds_its_tensors_below_a_head(
    name: str, tmp_path: Path
) -> None:
    model = tiny_model(name)
    with_head, bare = both_bases(model, tmp_path)
    targets = ARCHITECTURES[name].target_parameters
    adapted = list(adapted_weights(adapt(model.base_model, target_parameters=targets)))
    assert adapted
    assert matched(adapted, bare).unmatched == {}
    assert matched(adapted, with_head).unmatched == {}
