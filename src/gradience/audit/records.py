"""The nouns of an audit: what is written to JSON, shown, and compared.

Every number was computed. One that could not be is absent, with its reason in `unmeasured`.
"""

from typing import Any, Literal

import msgspec

from gradience.findings import Finding, Severity

SCHEMA = "gradience.audit/v1"
SET_SCHEMA = "gradience.audits/v1"

Verdict = Literal["healthy", "look", "broken"]
TruncationRule = Literal["per_module", "uniform_median", "uniform_p90", "uniform_max"]
LayerKind = Literal["linear", "conv", "embedding", "expert"]


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """One metric over a group of layers; percentiles interpolate linearly between order statistics.

    Attributes
    ----------
    count : int
        Layers on which it was measured.
    """

    count: int
    mean: float
    median: float
    p10: float
    p90: float
    max: float


class BaseComparison(msgspec.Struct, frozen=True, kw_only=True):
    """A change beside the base weight it changes.

    Attributes
    ----------
    lower, upper : float
        Interval of the spectral norm of the base weight.
    frobenius : float
        Its Frobenius norm.
    udr_lower, udr_upper : float
        Interval of UDR that follows.
    """

    lower: float
    upper: float
    frobenius: float
    udr_lower: float
    udr_upper: float


class LayerAudit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One adapted weight.

    Attributes
    ----------
    name : str
        Module path in the base model.
    module_type : str
        attention, mlp, embedding, other.
    block : str or None
        The block it lies in, such as `model.layers.3`; None outside of any.
    shape : (out, in)
        Of the change as a matrix.
    rank : int
        Rank that the adapter allocates.
    scale : float
        What the loader multiplies B @ A with.
    dtypes : tuple of str
        Stored types of its tensors.
    parameters, nbytes : int
        Trainable numbers, and stored bytes.
    singular_values : tuple of float
        Of the scaled change, descending; empty where only the norms are known.
    relative_error : float or None
        Predicted bound on the relative error of every value above 1e-6 of the largest; None where
        no digit of the smallest of them is known, because B and A cancel one another.
    spectrum_of : str
        "change", or "direction" for DoRA without its base model.
    metrics : dict
        By name in `gradience.audit.metrics.METRICS`.
    unmeasured : dict
        Name of a metric to the reason it is absent.
    bias_norm : float or None
        ||scale * b||_2 of a `lora_bias`.
    """

    name: str
    module_type: str
    shape: tuple[int, int]
    rank: int
    scale: float
    parameters: int
    nbytes: int
    dtypes: tuple[str, ...]
    kind: LayerKind = "linear"
    method: str = "lora"
    block: str | None = None
    singular_values: tuple[float, ...] = ()
    relative_error: float | None = 0.0
    spectrum_of: Literal["change", "direction"] = "change"
    metrics: dict[str, float] = {}
    unmeasured: dict[str, str] = {}
    base: BaseComparison | None = None
    bias_norm: float | None = None


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """The layers of one module type, or of one block.

    Attributes
    ----------
    energy_share : float or None
        Share of sum ||dW||_F^2 over the adapter; None if the whole adapter is zero.
    """

    name: str
    layers: int
    parameters: int
    energy_share: float | None
    stats: dict[str, Stats]


class Concentration(msgspec.Struct, frozen=True, kw_only=True):
    """How the energy ||dW||_F^2 is spread over the blocks.

    Attributes
    ----------
    hhi : float
        Herfindahl-Hirschman index, sum of squared shares: 1/n when even, 1 when in one block.
    top1_share, top3_share : float
        Share of the strongest block and of the three strongest.
    """

    blocks: int
    hhi: float
    top1_share: float
    top3_share: float


class ByteUse(msgspec.Struct, frozen=True, kw_only=True):
    """Where the bytes of an adapter are.

    Attributes
    ----------
    file : int
        Size of the weights file.
    tensors : int
        Bytes of tensor data in it; the rest is header.
    by_kind : dict
        factors, magnitude, head, embedding, bias, tokens, norm, other, unread.
    by_dtype : dict
    as_bf16 : int
        Bytes of tensor data if everything wider were stored as bfloat16.
    """

    file: int
    tensors: int
    by_kind: dict[str, int]
    by_dtype: dict[str, int]
    as_bf16: int


class Suggestion(msgspec.Struct, frozen=True, kw_only=True):
    """A truncation by SVD, with the error it has on the change: evidence, not proof of safety.

    Attributes
    ----------
    action : str
        Always "truncate": keep the k strongest singular directions, without training.
    rule : str
        per_module: each module's own energy rank. uniform_median, uniform_p90, uniform_max: one
        rank for all, from those energy ranks.
    energy : float
        The share of energy that the energy ranks are taken at.
    rank : int
        The largest rank over the modules after it.
    ranks : dict
        Rank per module, for per_module.
    relative_error : float
        ||dW - dW_k||_F / ||dW||_F over the whole adapter, exact (Eckart and Young, 1936).
    worst_error, worst_module
        The same for the module that loses most.
    parameters, nbytes : int
        Of the factors, after it.
    server_rank_before, server_rank : int or None
        vLLM's `max_lora_rank` that it needs, before and after; None above every one of them.
    clears : tuple of str
        Limits of servers that the adapter does not meet now and would meet.
    """

    action: Literal["truncate"]
    rule: TruncationRule
    energy: float
    rank: int
    relative_error: float
    worst_error: float
    worst_module: str
    parameters: int
    nbytes: int
    server_rank_before: int | None
    server_rank: int | None
    clears: tuple[str, ...] = ()
    ranks: dict[str, int] = {}


class BaseUse(msgspec.Struct, frozen=True, kw_only=True):
    """The base model that the changes were held against.

    Attributes
    ----------
    known_by : str
        What tells this content of the base from another, the surest first: `commit`, `hash`,
        `version`, `sample` (sizes, headers and blocks of the files), `told` (by a file of norms).
    with_udr : int
        Layers that have a UDR.
    unchecked : int
        Of these, the ones whose base norm was taken from a file on its word.
    width : float or None
        The widest interval of a base norm among them, upper / lower - 1; UDR is known as closely.
    without : dict
        Layer to the reason it has none.
    above : dict
        Share of the layers with a UDR above 0.1, 0.3 and 1.
    """

    model: str
    revision: str | None
    fingerprint: str
    with_udr: int
    without: dict[str, str]
    above: dict[str, float]
    known_by: str = ""
    unchecked: int = 0
    width: float | None = None


class AdapterAudit(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that Gradience says of one adapter.

    Attributes
    ----------
    source : str
        What the user named.
    base : BaseUse or None
        None when no base model was asked for.
    layers : tuple of LayerAudit
        In the order of the model.
    overall : dict
        Metric to its statistics over all layers.
    by_type, by_block : tuple of Group
    concentration : Concentration or None
        None when the adapter is zero, or has no blocks.
    verdict : str
        broken: a finding of severity error. look: a warning. healthy: neither.
    """

    source: str
    files: tuple[str, ...]
    fingerprint: str
    dialect: str
    peft_type: str
    recorded_base: str | None
    recorded_revision: str | None
    base: BaseUse | None
    verdict: Verdict
    findings: tuple[Finding, ...]
    layers: tuple[LayerAudit, ...]
    overall: dict[str, Stats]
    by_type: tuple[Group, ...]
    by_block: tuple[Group, ...]
    concentration: Concentration | None
    byte_use: ByteUse
    suggestions: tuple[Suggestion, ...]

    @property
    def parameters(self) -> int:
        """Trainable numbers of all layers."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def method(self) -> str:
        """What the layers are, in the field's spelling: `LoRA`, `DoRA`, `LoRA and LoHa`."""
        return " and ".join(dict.fromkeys(_METHODS.get(a.method, a.method) for a in self.layers))

    @property
    def max_rank(self) -> int:
        """Largest allocated rank."""
        return max(layer.rank for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """The record as plain dicts, lists and numbers."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    def to_json(self) -> str:
        """The record as JSON; the command line's `--json` adds the envelope of an artifact."""
        return msgspec.json.encode(self).decode()

    def summary(self) -> dict[str, float | int | str]:
        """Flat names for a logger or a table: `stable_rank_mean`, `udr_median`, `n_layers`.

        Every metric gives `_mean`, `_median`, `_p10`, `_p50`, `_p90` and `_max`. A metric that
        was measured on no layer gives no name.
        """
        flat: dict[str, float | int | str] = {
            "verdict": self.verdict,
            "n_layers": len(self.layers),
            "n_layers_with_udr": self.base.with_udr if self.base else 0,
            "n_findings": len(self.findings),
            "n_warnings": sum(f.severity is Severity.WARNING for f in self.findings),
            "n_errors": sum(f.severity is Severity.ERROR for f in self.findings),
            "parameters": self.parameters,
            "bytes": self.byte_use.file,
            "rank_max": self.max_rank,
        }
        for name, stats in self.overall.items():
            flat |= {f"{name}_{key}": getattr(stats, key) for key in _FLAT}
            flat[f"{name}_p50"] = stats.median
        if self.base is not None:
            flat |= {f"udr_share_above_{limit}": s for limit, s in self.base.above.items()}
        if self.concentration is not None:
            flat["energy_hhi"] = self.concentration.hhi
        return flat

    def to_frame(self) -> Any:
        """One row per layer, as a polars or a pandas DataFrame, whichever is installed.

        Raises
        ------
        MissingExtraError
            If neither is installed.
        """
        from gradience.audit.frame import to_frame  # noqa: PLC0415 - pandas takes half a second

        return to_frame(self)

    def __repr__(self) -> str:
        return (
            f"<AdapterAudit of {self.source}: {self.verdict}, {len(self.layers)} layers, "
            f"rank {self.max_rank}, {len(self.findings)} findings>"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from gradience.audit.notebook import to_html  # noqa: PLC0415

        return to_html(self)


_METHODS = {
    "lora": "LoRA",
    "dora": "DoRA",
    "adalora": "AdaLoRA",
    "loha": "LoHa",
    "lokr": "LoKr",
    "full": "full differences",
}
_FLAT = ("mean", "median", "p10", "p90", "max")


class AuditFailure(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter that could not be read, among several: the others are still audited."""

    source: str
    code: str
    message: str
    remedy: str
    exit_code: int


class AuditSet(msgspec.Struct, frozen=True, kw_only=True):
    """Several adapters in one artifact."""

    audits: tuple[AdapterAudit, ...]
    failures: tuple[AuditFailure, ...] = ()
