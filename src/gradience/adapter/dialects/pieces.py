"""The tensors of one module under names of their own, and the layer they make.

Kohya and diffusers files differ in how they spell a module and its parts; what the parts mean is
the same. A dialect spells (key to module and role, and the scale rule), this module assembles.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
from msgspec.structs import replace

from gradience.adapter.delta import Delta, Dense, Kronecker, Matrix, Product
from gradience.adapter.finding_kinds import UNREAD_TENSORS
from gradience.adapter.methods.lora import check_factor, lora_delta, mismatch
from gradience.adapter.methods.lycoris import loha_delta, lokr_delta
from gradience.adapter.methods.matrices import Float64, computed, float64, stored
from gradience.adapter.names import natural_key
from gradience.adapter.parts import Parts
from gradience.adapter.records import ExtraKind, ExtraTensor, LayerKind, LoraLayer, Method
from gradience.errors import AdapterError, UnsupportedAdapterError
from gradience.findings import Finding
from gradience.tensors.stored import StoredTensor
from gradience.units import plural

# `alpha`, `magnitude`, `dora_scale` and `bias` are roles too: they say nothing without factors.
LORA_ROLES = ("down", "up", "mid")
LOHA_ROLES = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
LOKR_ROLES = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
FULL_ROLES = ("diff",)

_EXTRAS: Mapping[str, ExtraKind] = {"diff_b": "bias", "w_norm": "norm", "b_norm": "norm"}
"""Whole changes of what is no matrix: counted, not measured."""

_FAMILIES: Mapping[Method, tuple[str, ...]] = {
    "lora": LORA_ROLES,
    "loha": LOHA_ROLES,
    "lokr": LOKR_ROLES,
    "full": FULL_ROLES,
}
_REMEDY = "Download or save the file again; no loader can use it as it is."


class Scaling(msgspec.Struct, frozen=True, kw_only=True):
    """What a loader multiplies with, and where it has that from.

    Attributes
    ----------
    scale : float
    alpha : float or None
        As stored or configured; None when neither says.
    configured_rank : int or None
    """

    scale: float
    alpha: float | None = None
    configured_rank: int | None = None


ScaleRule = Callable[[str, float | None, int | None], Scaling]
"""(module, alpha as stored or None, rank of the tensors) to what the loader multiplies with.

The rank is None where every part is whole (LoKr with w1 and w2), and nothing divides by it.
"""


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """The change of a module before it is scaled; `rank` is None where no part has one."""

    delta: Delta
    rank: int | None
    kind: LayerKind = "linear"


@dataclass(slots=True)
class Module:
    """The tensors of one module by role."""

    name: str
    parts: dict[str, StoredTensor] = field(default_factory=dict)

    def add(self, role: str, tensor: StoredTensor) -> None:
        """Note a tensor.

        Raises
        ------
        AdapterError
            If the role is taken: two spellings of one part contradict each other.
        """
        other = self.parts.setdefault(role, tensor)
        if other is not tensor:
            raise AdapterError(
                f"{other.name} and {tensor.name} are the same part of {self.name}",
                remedy="Remove one of the two; loaders take whichever comes last.",
            )

    def methods(self) -> list[Method]:
        """The methods whose parts are there."""
        return [method for method, roles in _FAMILIES.items() if self.parts.keys() & set(roles)]

    def need(self, role: str, *, flat: bool = False) -> StoredTensor:
        """A part that must be there and fit to be a factor; a matrix and no kernel if `flat`.

        Raises
        ------
        AdapterError
        """
        tensor = self.parts.get(role)
        if tensor is None:
            there = ", ".join(t.name for t in self.parts.values())
            raise AdapterError(
                f"{self.name} has {there}, and nothing that is its {role!r} factor", remedy=_REMEDY
            )
        check_factor(self.name, tensor)
        if flat and len(tensor.shape) != 2:
            raise AdapterError(
                f"{tensor.name} has shape {list(tensor.shape)}: this factor is a matrix",
                remedy=_REMEDY,
            )
        return tensor


@dataclass(slots=True)
class Gathered:
    """The tensors of a file, sorted into modules, extras and the rest."""

    modules: dict[str, Module] = field(default_factory=dict)
    extras: list[ExtraTensor] = field(default_factory=list)
    unread: list[StoredTensor] = field(default_factory=list)

    def add(self, module: str, role: str, tensor: StoredTensor) -> None:
        """Note a part of a module, or the change of a bias or norm beside it."""
        kind = "norm" if role == "diff" and len(tensor.shape) < 2 else _EXTRAS.get(role)
        if kind is None:
            self.modules.setdefault(module, Module(module)).add(role, tensor)
        else:
            self.add_extra(kind, tensor)

    def add_extra(self, kind: ExtraKind, tensor: StoredTensor) -> None:
        """Note a tensor beside the factors."""
        self.extras.append(ExtraTensor(kind=kind, tensor=tensor))


def parts_of(gathered: Gathered, rule: ScaleRule) -> Parts:
    """Every module as a layer, in natural order; what is no layer, in its place.

    Raises
    ------
    AdapterError, UnsupportedAdapterError
        As `layer_of`.
    """
    layers, unread = [], list(gathered.unread)
    for name in sorted(gathered.modules, key=natural_key):
        module = gathered.modules[name]
        if module.methods():
            layers.append(layer_of(module, rule))
        else:  # an alpha or a magnitude without its factors
            unread += module.parts.values()
    findings: tuple[Finding, ...] = ()
    if unread:
        shown = ", ".join(t.name for t in unread[:5]) + (" and more" if len(unread) > 5 else "")
        findings = (
            UNREAD_TENSORS.found(
                f"{plural(len(unread), 'tensor was', 'tensors were')} not read: {shown}",
                modules=[t.name for t in unread],
            ),
        )
    return Parts(
        layers=tuple(layers),
        extras=tuple(gathered.extras),
        unread=tuple(unread),
        findings=findings,
    )


def layer_of(module: Module, rule: ScaleRule) -> LoraLayer:
    """The layer that the parts of a module make.

    Raises
    ------
    AdapterError
        If a part is missing, or shapes contradict one another.
    UnsupportedAdapterError
        If the parts are of two methods at once.
    """
    methods = module.methods()
    if len(methods) > 1:
        raise UnsupportedAdapterError(
            f"{module.name} has parts of {' and '.join(methods)} at once: "
            + ", ".join(t.name for t in module.parts.values()),
            remedy="Save one method per module.",
        )
    form = _FORMS[methods[0]](module)
    alpha = stored_alpha(module)
    # `diff` is the change itself: loaders multiply it with nothing.
    scaling = Scaling(scale=1.0) if methods == ["full"] else rule(module.name, alpha, form.rank)
    layer = LoraLayer(
        name=module.name,
        delta=form.delta,
        scale=scaling.scale,
        rank=form.rank or form.delta.rank,
        method=methods[0],
        kind=form.kind,
        alpha=scaling.alpha,
        configured_rank=scaling.configured_rank,
        tensors=tuple(module.parts.values()),
        parameters=sum(t.size for role, t in module.parts.items() if role != "alpha"),
        nbytes=sum(t.nbytes for t in module.parts.values()),
        bias=module.parts.get("bias"),
    )
    return _with_magnitude(layer, module.parts)


def _with_magnitude(layer: LoraLayer, parts: Mapping[str, StoredTensor]) -> LoraLayer:
    """DoRA. `dora_scale` of LyCORIS scales rows, (out, 1), or columns, (1, in): its loaders tell
    the two by the first dimension.

    A magnitude of columns is another change than the one `LoraLayer` describes: the layer is
    marked, so that its direction is measured and nothing else is claimed.
    """
    magnitude = parts.get("magnitude") or parts.get("dora_scale")
    if magnitude is None:
        return layer
    columns = "magnitude" not in parts and magnitude.shape[:1] != layer.shape[:1]
    return replace(layer, method="dora", magnitude=None if columns else magnitude)


def stored_alpha(module: Module) -> float | None:
    """The number in the module's alpha tensor; None without one.

    Raises
    ------
    AdapterError
        If it is not one finite number.
    """
    tensor = module.parts.get("alpha")
    if tensor is None:
        return None
    if tensor.size != 1:
        raise AdapterError(
            f"{tensor.name} has shape {list(tensor.shape)}: alpha is one number", remedy=_REMEDY
        )
    value = float(float64(tensor).reshape(-1)[0])
    if not math.isfinite(value):
        raise AdapterError(f"{tensor.name} is {value}: no scale can be made of it", remedy=_REMEDY)
    return value


def _lora(module: Module) -> Form:
    """up (out, r) @ down (r, in); a kernel is flattened to (out, in * kh * kw)."""
    down, up = module.need("down"), module.need("up")
    if "mid" not in module.parts:
        if up.shape[1] != down.shape[0]:  # no trainer of these formats groups the channels of B
            raise mismatch(module.name, down, up)
        delta = lora_delta(module.name, down, up)
        return Form(delta=delta, rank=down.shape[0], kind=_kind(down))
    mid = module.need("mid")
    if len(mid.shape) < 3 or mid.shape[:2] != (up.shape[1], down.shape[0]):
        raise mismatch(module.name, mid, up)
    if down.size != math.prod(down.shape[:2]) or up.size != math.prod(up.shape[:2]):
        raise mismatch(module.name, down, up)
    delta = Product(left=stored(up), right=_core_times(mid, down))
    return Form(delta=delta, rank=down.shape[0], kind="conv")


def _core_times(mid: StoredTensor, down: StoredTensor) -> Matrix:
    """CP convolution: mid (r, r', *kernel) times down (r', in), as (r, in * kernel)."""
    r, s = mid.shape[:2]
    taps, columns = math.prod(mid.shape[2:]), down.shape[1]

    def contracted() -> Float64:
        core, right = float64(mid).reshape(r, s, taps), float64(down).reshape(s, columns)
        mixed: Float64 = np.einsum("ijk,jn->ink", core, right, optimize=True)
        return mixed.reshape(r, columns * taps)

    return computed((r, columns * taps), contracted)


def _loha(module: Module) -> Form:
    first, second = _pair(module, "hada_w1"), _pair(module, "hada_w2")
    cores = None
    if {"hada_t1", "hada_t2"} & module.parts.keys():
        cores = module.need("hada_t1"), module.need("hada_t2")
    delta = loha_delta(module.name, first, second, cores)
    return Form(delta=delta, rank=first[1].shape[0], kind="conv" if cores else "linear")


def _lokr(module: Module) -> Form:
    """kron(w1, w2). The rank is that of w2's factors, else of w1's (LyCORIS, diffusers)."""
    w1 = module.need("lokr_w1", flat=True) if "lokr_w1" in module.parts else None
    w2 = module.need("lokr_w2") if "lokr_w2" in module.parts else None
    core = module.need("lokr_t2") if "lokr_t2" in module.parts else None
    wide = core or w2
    kind: LayerKind = "linear" if wide is None else _kind(wide)
    if w1 is not None and w2 is not None:
        # LyCORIS lifts w1 to the dimensions of w2, so this is the Kronecker product of matrices.
        whole = Kronecker(left=Dense(matrix=stored(w1)), right=Dense(matrix=stored(w2)))
        return Form(delta=whole, rank=None, kind=kind)
    first, second = w1 or _pair(module, "lokr_w1"), w2 or _pair(module, "lokr_w2")
    factored = second if isinstance(second, tuple) else first
    rank = factored[1].shape[0] if isinstance(factored, tuple) else None
    return Form(delta=lokr_delta(module.name, first, second, core), rank=rank, kind=kind)


def _pair(module: Module, role: str) -> tuple[StoredTensor, StoredTensor]:
    return module.need(f"{role}_a", flat=True), module.need(f"{role}_b", flat=True)


def _full(module: Module) -> Form:
    """`diff`: the whole change of a weight, stored as it is; no alpha is applied to it."""
    diff = module.need("diff")
    return Form(delta=Dense(matrix=stored(diff)), rank=None, kind=_kind(diff))


_FORMS: Mapping[Method, Callable[[Module], Form]] = {
    "lora": _lora,
    "loha": _loha,
    "lokr": _lokr,
    "full": _full,
}


def _kind(tensor: StoredTensor) -> LayerKind:
    return "conv" if len(tensor.shape) > 2 else "linear"
