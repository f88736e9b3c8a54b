"""What a trial will cost in bytes and seconds: from shapes, from trials like it, or not known.

Bytes follow from the shapes of the base model; seconds only from something that was measured.
Pure.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from gradience.adapter.targets import is_named, unnamed
from gradience.audit.base.weights import TensorFacts, as_matrix
from gradience.bench.records import PROBE, TrialResult, Variant
from gradience.bench.settings import LoraSettings

FLOAT32_BYTES = 4
TRAINED = (PROBE, "heal", "retrain")
"""Actions that train."""

_SCRATCH = 1  # copies of the adapter while it is written: training saves no checkpoints
_RECORD_BYTES = 8192  # of result.json, trial.json and the log, without items
_ITEM_BYTES = 24  # of an item's id and score in result.json
_ALL_LINEAR = "all-linear"
_NOT_LINEAR = re.compile(r"(^|[._])(emb|embed|embeddings?|wte|wpe|shared|lm_head|classifier|score)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """The weights that an adapter changes.

    Attributes
    ----------
    modules : int
    per_rank : int
        Parameters of the factors for each unit of rank: sum of (in + out).
    exact : bool
        False where the names leave open which modules are meant.
    missing : tuple of str
        Names among the targets that no weight has.
    """

    modules: int
    per_rank: int
    exact: bool = True
    missing: tuple[str, ...] = ()

    @property
    def doubt(self) -> str:
        """What to tell of the missing names; "" where there are none."""
        if not self.missing:
            return ""
        return (
            f"Targets: no weight of the model is named {', '.join(map(repr, self.missing))}; PEFT "
            "trains the others without a word. Correct lora.targets, unless a layer without a "
            "weight of its own is meant."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one trial.

    Attributes
    ----------
    peak : int or None
        Bytes while it runs.
    kept : int or None
        Bytes when it is done.
    seconds : float or None
    exact : bool
        Whether the bytes follow from shapes or from files, and are no upper bound.
    """

    peak: int | None = None
    kept: int | None = None
    seconds: float | None = None
    exact: bool = True


def adapted(lora: LoraSettings, tensors: Mapping[str, TensorFacts]) -> Shapes:
    """The weights that PEFT will change, by its rule for `target_modules`.

    A list holds names or their ends; a text is a regular expression for the whole name, or
    `all-linear` (`peft.tuners.tuners_utils.check_target_module_exists`).
    """
    matrices = {
        name.removesuffix(".weight"): facts.shape
        for name, facts in tensors.items()
        if name.endswith(".weight") and len(facts.shape) >= 2
    }
    found = [as_matrix(shape) for module, shape in matrices.items() if _is_target(module, lora)]
    return Shapes(
        modules=len(found),
        per_rank=sum(rows + columns for rows, columns in found),
        exact=lora.targets != _ALL_LINEAR,
        missing=() if isinstance(lora.targets, str) else unnamed(lora.targets, matrices),
    )


def _is_target(module: str, lora: LoraSettings) -> bool:
    if lora.targets == _ALL_LINEAR:
        return _NOT_LINEAR.search(module) is None
    if isinstance(lora.targets, str):
        # The running model may have a prefix that the checkpoint lacks.
        return re.fullmatch(f"({lora.targets})|.*[.]({lora.targets})", module) is not None
    return any(is_named(module, end) for end in lora.targets)


def cost(
    variant: Variant,
    *,
    lora: LoraSettings,
    shapes: Shapes | None,
    results: Sequence[TrialResult],
    items: int,
) -> Cost:
    """What a trial of this variant costs.

    Parameters
    ----------
    variant : Variant
    lora : LoraSettings
    shapes : Shapes or None
        None where the base model could not be opened.
    results : sequence of TrialResult
        Of this bench so far.
    items : int
        Test items, for the size of the record.
    """
    adapter, exact = _adapter_bytes(variant, lora, shapes, results)
    if adapter is None:
        return Cost(seconds=_seconds(variant, results), exact=False)
    kept = adapter * (2 if variant.action == PROBE else 1) + _RECORD_BYTES + items * _ITEM_BYTES
    scratch = adapter * _SCRATCH if variant.action in TRAINED else 0
    return Cost(peak=kept + scratch, kept=kept, seconds=_seconds(variant, results), exact=exact)


def _adapter_bytes(
    variant: Variant,
    lora: LoraSettings,
    shapes: Shapes | None,
    results: Sequence[TrialResult],
) -> tuple[int | None, bool]:
    """Bytes of the weights file, and whether that is exact."""
    same = [r.adapter.nbytes for r in results if r.trial.spec.variant.name == variant.name]
    if same:
        return round(fmean(same)), True
    share = 0.5 if variant.action == "bf16" else 1.0  # int8 is written out in float32
    rank = variant.rank if variant.rank is not None else lora.rank
    exact = variant.energy is None
    probe = next((r.adapter for r in results if r.trial.spec.variant.action == PROBE), None)
    if probe is not None:
        factors = probe.factor_bytes * rank * share / lora.rank
        return round(factors) + probe.nbytes - probe.factor_bytes, exact
    if shapes is None or not shapes.modules:
        return None, False
    return round(shapes.per_rank * rank * FLOAT32_BYTES * share), exact and shapes.exact


def _seconds(variant: Variant, results: Iterable[TrialResult]) -> float | None:
    """Of trials of the same variant, else of the same action, else of another that trains not."""
    found = [(r.trial.spec.variant, r.seconds) for r in results]
    training = variant.action in TRAINED
    for alike in (
        [s for v, s in found if v.name == variant.name],
        [s for v, s in found if v.action == variant.action],
        [s for v, s in found if not training and v.action not in TRAINED],
    ):
        if alike:
            return fmean(alike)
    return None
