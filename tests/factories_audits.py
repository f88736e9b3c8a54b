"""Realistic `AdapterAudit` records, made without running an audit.

Spectra are power laws with noise from a fixed seed; every metric is the real one, so the numbers
of a record agree with each other.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from gradience.audit.aggregate import by_block, by_type, concentration, stats_of
from gradience.audit.facts import BaseFacts, LayerFacts
from gradience.audit.metrics import METRICS
from gradience.audit.records import (
    AdapterAudit,
    BaseComparison,
    BaseUse,
    ByteUse,
    LayerAudit,
)
from gradience.audit.suggest import suggest
from gradience.errors import UnmeasurableError
from gradience.findings import Finding, Severity

HOSTILE = "</script><img src=x onerror=alert(1)>\u2028&\"'{{x}}"
"""A module name that tries to leave every place it could be written to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One adapted module of a block: where it is and what it maps."""

    path: str
    type: str
    shape: tuple[int, int]
    strength: float = 1.0


LLAMA = (
    Module(path="self_attn.q_proj", type="attention", shape=(4096, 4096), strength=1.0),
    Module(path="self_attn.k_proj", type="attention", shape=(1024, 4096), strength=0.6),
    Module(path="self_attn.v_proj", type="attention", shape=(1024, 4096), strength=1.4),
    Module(path="self_attn.o_proj", type="attention", shape=(4096, 4096), strength=1.1),
    Module(path="mlp.gate_proj", type="mlp", shape=(14336, 4096), strength=0.9),
    Module(path="mlp.up_proj", type="mlp", shape=(14336, 4096), strength=1.2),
    Module(path="mlp.down_proj", type="mlp", shape=(4096, 14336), strength=0.8),
)


def make_layer(
    name: str,
    *,
    values: Sequence[float] | None,
    module_type: str = "attention",
    block: str | None = None,
    shape: tuple[int, int] = (64, 64),
    rank: int = 8,
    scale: float = 2.0,
    base: BaseFacts | None = None,
    with_base: bool = False,
    dtype: str = "F32",
) -> LayerAudit:
    """A layer with these singular values; None for factors that are not finite."""
    metrics: dict[str, float] = {}
    unmeasured: dict[str, str] = {}
    facts = None if values is None else _facts(np.asarray(values, np.float64), rank, base)
    for key, metric in METRICS.items():
        if metric.needs_packed or (metric.needs_base and not with_base):
            continue
        try:
            if facts is None:
                raise UnmeasurableError("the factors hold NaN", remedy="")
            metrics[key] = metric.measure(facts)
        except UnmeasurableError as error:
            unmeasured[key] = str(error)
    parameters = rank * sum(shape)
    return LayerAudit(
        name=name,
        module_type=module_type,
        block=block,
        shape=shape,
        rank=rank,
        scale=scale,
        dtypes=(dtype,),
        parameters=parameters,
        nbytes=parameters * (4 if dtype == "F32" else 2),
        singular_values=() if values is None else tuple(map(float, values)),
        relative_error=1e-13,
        metrics=metrics,
        unmeasured=unmeasured,
        base=_comparison(facts, base),
    )


def make_audit(
    *,
    source: str = "runs/mistral-alpaca",
    blocks: int = 12,
    modules: Sequence[Module] = LLAMA[:6],
    rank: int = 16,
    with_base: bool = True,
    seed: int = 0,
    broken: bool = False,
    head: bool = False,
    prefix: str = "model.layers",
    dtype: str = "F32",
) -> AdapterAudit:
    """An adapter of `blocks` x `modules`; `broken` has a dead, a NaN and an outlier module."""
    rng = np.random.default_rng(seed)
    layers = []
    for block in range(blocks):
        for module in modules:
            where = f"{prefix}.{block}"
            depth = 0.4 + 1.2 * block / max(1, blocks - 1)
            top = 0.02 * module.strength * depth * rng.lognormal(0, 0.2)
            decay = rng.uniform(0.7, 1.3)
            values = top * np.arange(1, rank + 1) ** -decay * rng.uniform(0.9, 1.0, rank)
            layers.append(
                make_layer(
                    f"{where}.{module.path}",
                    values=np.sort(values)[::-1].tolist(),
                    module_type=module.type,
                    block=where,
                    shape=module.shape,
                    rank=rank,
                    base=_base(rng) if with_base else None,
                    with_base=with_base,
                    dtype=dtype,
                )
            )
    findings: tuple[Finding, ...] = ()
    if broken:
        layers, findings = _break(layers)
    return assemble(layers, source=source, findings=findings, with_base=with_base, head=head)


def make_hostile_audit() -> AdapterAudit:
    """Every text that comes from a file holds markup."""
    layers = [
        make_layer(
            f"{HOSTILE}.{i}.{HOSTILE}",
            values=[1.0 / (1 + i), 0.5 / (1 + i)],
            block=f"{HOSTILE}.{i}",
            rank=4,
            base=BaseFacts(lower=2.0, upper=2.001, frobenius=20.0),
            with_base=True,
            dtype=HOSTILE,
        )
        for i in range(4)
    ]
    layers.append(make_layer(HOSTILE, values=[0.0, 0.0], rank=4, with_base=True))
    found = Finding(
        code="dead_modules",
        severity=Severity.WARNING,
        message=f"dead: {HOSTILE}",
        remedy=HOSTILE,
        modules=(HOSTILE,),
    )
    audit = assemble(layers, source=HOSTILE, findings=(found,), with_base=True)
    assert audit.base is not None
    return msgspec.structs.replace(
        audit,
        recorded_base=HOSTILE,
        recorded_revision=HOSTILE,
        fingerprint=HOSTILE,
        files=(HOSTILE,),
        base=msgspec.structs.replace(audit.base, model=HOSTILE, revision=HOSTILE),
        byte_use=msgspec.structs.replace(
            audit.byte_use, by_kind={HOSTILE: 10}, by_dtype={HOSTILE: 10}
        ),
    )


def assemble(
    layers: Iterable[LayerAudit],
    *,
    source: str,
    findings: tuple[Finding, ...] = (),
    with_base: bool = False,
    head: bool = False,
) -> AdapterAudit:
    """The record of an adapter with these layers."""
    layers = tuple(layers)
    blocks = by_block(layers)
    severities = {finding.severity for finding in findings}
    return AdapterAudit(
        source=source,
        files=(f"{source}/adapter_model.safetensors", f"{source}/adapter_config.json"),
        fingerprint="blake3:" + "5f" * 32,
        dialect="peft",
        peft_type="LORA",
        recorded_base="mistralai/Mistral-7B-v0.1",
        recorded_revision=None,
        base=_base_use(layers) if with_base else None,
        verdict="broken"
        if Severity.ERROR in severities
        else "look"
        if Severity.WARNING in severities
        else "healthy",
        findings=findings,
        layers=layers,
        overall=stats_of(layers),
        by_type=by_type(layers),
        by_block=blocks,
        concentration=concentration(blocks),
        byte_use=_byte_use(layers, head=head),
        suggestions=suggest(layers, 0),
    )


def _facts(values: np.ndarray, rank: int, base: BaseFacts | None) -> LayerFacts:
    return LayerFacts(
        values=values,
        spectral=float(values[0]),
        frobenius=float(np.linalg.norm(values)),
        rank=rank,
        left_norm=float(np.sqrt(values.sum())),
        right_norm=2.5,
        base=base,
    )


def _base(rng: np.random.Generator) -> BaseFacts:
    lower = float(rng.lognormal(1.2, 0.5))
    return BaseFacts(lower=lower, upper=lower * 1.0006, frobenius=lower * 9)


def _comparison(facts: LayerFacts | None, base: BaseFacts | None) -> BaseComparison | None:
    if facts is None or base is None:
        return None
    return BaseComparison(
        lower=base.lower,
        upper=base.upper,
        frobenius=base.frobenius,
        udr_lower=facts.spectral / base.upper,
        udr_upper=facts.spectral / base.lower,
    )


def _base_use(layers: Sequence[LayerAudit]) -> BaseUse:
    udrs = [layer.metrics["udr"] for layer in layers if "udr" in layer.metrics]
    return BaseUse(
        model="mistralai/Mistral-7B-v0.1",
        revision="26bca36bde8333b5d7f72e9ed20ccda6a618af24",
        fingerprint="blake3:" + "a1" * 32,
        with_udr=len(udrs),
        without={a.name: a.unmeasured["udr"] for a in layers if "udr" in a.unmeasured},
        above={str(x): sum(u > x for u in udrs) / len(udrs) for x in (0.1, 0.3, 1)} if udrs else {},
    )


def _byte_use(layers: Sequence[LayerAudit], *, head: bool) -> ByteUse:
    by_dtype: Counter[str] = Counter()
    for layer in layers:
        by_dtype[layer.dtypes[0]] += layer.nbytes
    by_kind = {"factors": sum(layer.nbytes for layer in layers)}
    if head:
        by_kind["head"] = 4096 * 32000 * 2
        by_dtype["BF16"] += by_kind["head"]
    total = sum(by_kind.values())
    return ByteUse(
        file=total + 26_112,
        tensors=total,
        by_kind=by_kind,
        by_dtype=dict(by_dtype),
        as_bf16=total - by_dtype["F32"] // 2,
    )


def _break(layers: Sequence[LayerAudit]) -> tuple[list[LayerAudit], tuple[Finding, ...]]:
    """Module 3 is dead, module 7 is not finite, module 11 is fifty times too large."""
    dead, lost, wild = layers[3], layers[7], layers[11]
    with_base = "udr" in dead.metrics
    changed = {
        dead.name: [0.0] * dead.rank,
        lost.name: None,
        wild.name: [50 * s for s in wild.singular_values],
    }
    again = [
        make_layer(
            a.name,
            values=changed[a.name],
            module_type=a.module_type,
            block=a.block,
            shape=a.shape,
            rank=a.rank,
            base=None
            if a.base is None
            else BaseFacts(lower=a.base.lower, upper=a.base.upper, frobenius=a.base.frobenius),
            with_base=with_base,
        )
        if a.name in changed
        else a
        for a in layers
    ]
    return again, (
        Finding(
            code="not_finite",
            severity=Severity.ERROR,
            message=f"1 module holds NaN or infinity: {lost.name}",
            remedy="Train again from the last checkpoint that is finite.",
            modules=(lost.name,),
        ),
        Finding(
            code="dead_modules",
            severity=Severity.WARNING,
            message="1 of 72 modules has a change of exactly zero",
            remedy="Check that it receives gradients; else leave it out of target_modules.",
            modules=(dead.name,),
        ),
        Finding(
            code="base_revision_missing",
            severity=Severity.INFO,
            message="the config names mistralai/Mistral-7B-v0.1 and no revision of it",
            remedy="Write the commit of the base model as `revision` into adapter_config.json.",
        ),
    )
