"""Whether a stored tensor can be the weight of a layer, and which way round it is stored."""

from collections.abc import Mapping
from dataclasses import dataclass

from gradience.adapter.records import LoraLayer
from gradience.audit.base.renames import Source
from gradience.audit.base.weights import BaseWeight, Part, TensorFacts, as_matrix


@dataclass(frozen=True, slots=True)
class Fitting:
    """Fits tensors of one checkpoint to layers.

    Attributes
    ----------
    base : mapping of str to TensorFacts
    conv1d : bool or None
        From `is_conv1d`.
    """

    base: Mapping[str, TensorFacts]
    conv1d: bool | None

    def weight(self, layer: LoraLayer, source: Source) -> BaseWeight | None:
        """The source as a weight of the layer's shape; None when the shapes cannot agree.

        A kernel is flattened to (out, in * kh * kw), an expert is a slice or has tensors of its
        own, and a weight stored as (in, out) is taken where the shape leaves no other reading.
        """
        parts = self._parts(layer, source)
        shapes = [self._shape(part) for part in parts]
        if len({columns for _, columns in shapes}) != 1:
            return None
        stored = (sum(rows for rows, _ in shapes), shapes[0][1])
        straight, turned = stored == layer.shape, stored == layer.shape[::-1]
        if not straight and not turned:
            return None
        return BaseWeight(
            parts=parts,
            stored_shape=stored,
            dtype=self.base[parts[0].tensor].dtype,
            transposed=self._square_is_turned(layer, parts) if straight and turned else turned,
        )

    def _parts(self, layer: LoraLayer, source: Source) -> tuple[Part, ...]:
        """The parts that hold this layer's weight, or none when their dimensions forbid it."""
        if source.experts:
            parts = source.experts.get(-1 if layer.expert is None else layer.expert, ())
            return tuple(part for part in parts if len(self._shape_of(part)) == 2)
        if source.index is not None:
            one = Part(tensor=source.tensor, index=source.index)
            return (one,) if layer.expert in (None, 0) and len(self._shape_of(one)) == 2 else ()
        facts = self.base[source.tensor]
        shape = facts.shape
        if layer.expert is None:
            # A packed stack is a matrix for each expert, and none as a whole.
            whole = len(shape) == 2 or (len(shape) > 2 and not facts.packed)
            return (Part(tensor=source.tensor),) if whole else ()
        if len(shape) == 3 and layer.expert < shape[0]:
            return (Part(tensor=source.tensor, index=layer.expert),)
        # PEFT's target_parameters on a plain matrix: one "expert".
        if len(shape) == 2 and layer.expert == 0:
            return (Part(tensor=source.tensor),)
        return ()

    def _shape(self, part: Part) -> tuple[int, int]:
        return as_matrix(self._shape_of(part))

    def _shape_of(self, part: Part) -> tuple[int, ...]:
        shape = self.base[part.tensor].shape
        return shape if part.index is None else shape[1:]

    def _square_is_turned(self, layer: LoraLayer, parts: tuple[Part, ...]) -> bool:
        """Which way round a square weight is stored: the checkpoint knows better than the config.

        PEFT writes one `fan_in_fan_out` for all modules, that of the last one it adapted, so on a
        model with Conv1D and Linear it is wrong for one kind of them. A Conv1D always has a bias.
        """
        if layer.kind != "linear" or self.conv1d is None:
            return layer.base_transposed
        bias = parts[0].tensor.removesuffix("weight") + "bias"
        return self.conv1d and bias in self.base


def is_conv1d(base: Mapping[str, TensorFacts]) -> bool | None:
    """Whether a checkpoint stores its linear weights as (in, out), as GPT-2 does.

    A bias has one number per output, so beside a weight that is not square it tells. None when no
    weight tells.

    Examples
    --------
    >>> weight, bias = (TensorFacts(shape=s, dtype="F32") for s in ((768, 2304), (2304,)))
    >>> is_conv1d({"c_attn.weight": weight, "c_attn.bias": bias})
    True
    """
    votes = 0
    for name, facts in base.items():
        bias = base.get(name.removesuffix("weight") + "bias")
        if len(facts.shape) != 2 or bias is None or facts.shape[0] == facts.shape[1]:
            continue
        votes += (bias.shape == facts.shape[1:]) - (bias.shape == facts.shape[:1])
    return votes > 0 if votes else None
