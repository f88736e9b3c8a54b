"""An audit as a page to read: headline, findings, types, layers worth a look, suggestions. Pure."""

from collections.abc import Iterator, Sequence
from itertools import takewhile

from gradience.audit.aggregate import energy, types_and_all
from gradience.audit.metrics import METRICS
from gradience.audit.records import (
    AdapterAudit,
    AuditFailure,
    LayerAudit,
    Stats,
    Suggestion,
)
from gradience.findings import Finding, Severity, by_weight
from gradience.page import Page, Table, Text, Tone, count, number, percent
from gradience.units import format_size, plural

_WORDS: dict[str, tuple[str, Tone]] = {
    "healthy": ("HEALTHY", "good"),
    "look": ("NEEDS A LOOK", "warn"),
    "broken": ("BROKEN", "bad"),
}
# What a narrow page leaves out first: what other columns say in another way.
_SPARE = tuple(
    METRICS[name].title
    for name in ("stable_rank", "utilization", "effective_rank", "energy_rank_99", "spectral_norm")
)
_LEGEND = (
    "energy: share of sum ||dW||_F^2. UDR: ||dW||_2 / ||W||_2, the change beside its base weight."
)
_TONES: dict[Severity, Tone] = {
    Severity.ERROR: "bad",
    Severity.WARNING: "warn",
    Severity.INFO: "dim",
}
_RULES = {
    "per_module": "each module",
    "uniform_median": "the median module",
    "uniform_p90": "9 of 10 modules",
    "uniform_max": "every module",
}
_NO_PROOF = (
    "The error is that of the change dW, exactly; it is no proof that the model stays as good. "
    "Test the claim on your task."
)


def page(audit: AdapterAudit, *, top: int = 5, all_layers: bool = False) -> Page:
    """What the terminal shows of one adapter.

    Parameters
    ----------
    audit : AdapterAudit
    top : int
        Layers in "worth a look".
    all_layers : bool
        Show every layer in place of these.
    """
    return (
        *_headline(audit),
        *_findings(audit.findings),
        _types(audit),
        *_spread(audit),
        *_layers(audit, None if all_layers else top),
        *_base(audit),
        *_suggestions(audit),
        *_bytes(audit),
    )


def comparison(audits: Sequence[AdapterAudit], failures: Sequence[AuditFailure] = ()) -> Page:
    """What the terminal shows of several adapters: one column each would not fit, so a row each."""
    names = _short_names([a.source for a in audits])
    columns = [name for name in _shown(audits) if any(name in a.overall for a in audits)]
    head = ("adapter", "verdict", "findings", "modules", "rank", "parameters", "bytes")
    rows = tuple(
        (
            name,
            _WORDS[a.verdict][0].lower(),
            ", ".join(f.code for f in by_weight(a.findings) if f.severity != Severity.INFO) or "-",
            str(len(a.layers)),
            str(a.max_rank),
            count(a.parameters),
            format_size(a.byte_use.file),
            *(_median(a.overall.get(column)) for column in columns),
        )
        for name, a in zip(names, audits, strict=True)
    )
    unchecked = dict.fromkeys(filter(None, map(_unchecked, audits)))
    table = Table(
        title=plural(len(audits), "adapter"),
        head=(*head, *(METRICS[c].title for c in columns)),
        rows=rows,
        left=frozenset({0, 1, 2}),
        spare=("parameters", *_SPARE[:-1], "modules", "bytes"),
        note="Metrics are medians over modules."
        + (f" Size unchecked where healthy: {' or '.join(unchecked)}." if unchecked else ""),
    )
    broken = tuple(
        line
        for f in failures
        for line in (
            Text(text=f"error: {f.message} [{f.code}]", tone="bad"),
            Text(text=f"  {f.remedy}", tone="dim"),
        )
    )
    return (table, *broken) if audits else broken


def _unchecked(audit: AdapterAudit) -> str:
    """Why nothing tells how large the changes are of one that is called healthy; else empty."""
    if audit.verdict != "healthy" or (audit.base and audit.base.with_udr):
        return ""
    return "no base model" if audit.base is None else "no module has a weight in the base"


def _headline(audit: AdapterAudit) -> Iterator[Text]:
    base = audit.recorded_base or "an unrecorded base"
    yield Text(text=f"{audit.source}", tone="title")
    word, tone = _WORDS[audit.verdict]
    if why := _unchecked(audit):
        word += f" (size unchecked: {why})"
    blocks = f" in {len(audit.by_block)} blocks" if audit.by_block else ""
    ranks = sorted({layer.rank for layer in audit.layers})
    rank = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
    yield Text(
        text=f"{word}: {audit.method} on {base}; {len(audit.layers)} modules{blocks}, {rank}, "
        f"{count(audit.parameters)} parameters, {format_size(audit.byte_use.file)} "
        f"({'/'.join(audit.byte_use.by_dtype)})",
        tone=tone,
    )


def _findings(findings: Sequence[Finding]) -> Iterator[Text]:
    for finding in by_weight(findings):
        yield Text(
            text=f"{finding.severity}: {finding.message} [{finding.code}]",
            tone=_TONES[finding.severity],
        )
        yield Text(text=f"  {finding.remedy}", tone="dim")


def _shown(audits: Sequence[AdapterAudit]) -> list[str]:
    based = any(a.base is not None for a in audits)
    return [n for n, m in METRICS.items() if m.column and (based or not m.needs_base)]


def _types(audit: AdapterAudit) -> Table:
    columns = _shown([audit])
    return Table(
        title="By module type (medians)",
        head=("type", "modules", "parameters", "energy", *(METRICS[c].title for c in columns)),
        rows=tuple(
            (
                g.name,
                str(g.layers),
                count(g.parameters),
                percent(g.energy_share),
                *(_median(g.stats.get(c)) for c in columns),
            )
            for g in types_and_all(audit)
        ),
        spare=("parameters", *_SPARE),
        note=_LEGEND if audit.base else _LEGEND.partition(" UDR")[0],
    )


def _median(stats: Stats | None) -> str:
    return number(stats.median if stats else None)


def _spread(audit: AdapterAudit) -> Iterator[Text]:
    spread = audit.concentration
    if spread is None or spread.blocks < 2:
        return
    strongest = max(audit.by_block, key=lambda g: g.energy_share or 0.0)
    yield Text(
        text=f"Energy over {spread.blocks} blocks: HHI {number(spread.hhi)} "
        f"(even is {number(1 / spread.blocks)}); strongest {strongest.name} with "
        f"{percent(spread.top1_share)}, three strongest {percent(spread.top3_share)}."
    )


def _layers(audit: AdapterAudit, top: int | None) -> Iterator[Table]:
    columns = _shown([audit])
    total = sum(map(energy, audit.layers))
    layers = audit.layers if top is None else _worth_a_look(audit, top)
    if not layers:
        return
    stem = _shared_stem([layer.name for layer in audit.layers])
    below = f" below {stem.rstrip('.')}" if stem else ""
    flagged = any(finding.modules for finding in audit.findings)
    first = "Modules named above, then the largest" if flagged else "The largest changes"
    yield Table(
        title=f"{first if top is not None else 'Modules'}{below}",
        head=("module", "rank", "energy", *(METRICS[c].title for c in columns)),
        rows=tuple(
            (
                layer.name.removeprefix(stem),
                str(layer.rank),
                percent(energy(layer) / total if total else None),
                *(number(layer.metrics.get(c)) for c in columns),
            )
            for layer in layers
        ),
        spare=_SPARE,
        note=""
        if len(layers) == len(audit.layers)
        else f"{len(audit.layers)} in all: --layers shows them.",
    )


def _shared_stem(names: Sequence[str]) -> str:
    """The dotted path that all names begin with, so that a table need not repeat it."""
    if len(names) < 2:
        return ""
    first, last = min(names).split("."), max(names).split(".")
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return "".join(f"{part}." for part, _ in shared)


def _worth_a_look(audit: AdapterAudit, top: int) -> tuple[LayerAudit, ...]:
    flagged = {name for finding in audit.findings for name in finding.modules}
    ranked = sorted(audit.layers, key=lambda a: (a.name not in flagged, -energy(a)))
    return tuple(a for a in ranked[:top] if a.name in flagged or energy(a) > 0)


def _base(audit: AdapterAudit) -> Iterator[Text]:
    use = audit.base
    if use is None:
        yield Text(text="No base model: name one with --base-model for UDR.", tone="dim")
        return
    revision = f"@{use.revision[:12]}" if use.revision else ""
    in_full = "://" in use.model or use.model.count("/") < 2
    model = use.model if in_full else f".../{'/'.join(use.model.split('/')[-2:])}"
    stats = audit.overall.get("udr")
    if stats is not None:
        above = ", ".join(f"{percent(share)} above {limit}" for limit, share in use.above.items())
        yield Text(
            text=f"UDR beside {model}{revision}: median {number(stats.median)}, p90 "
            f"{number(stats.p90)}, max {number(stats.max)}; {above}; "
            f"{use.with_udr} of {len(audit.layers)} modules."
        )
    rounding = audit.overall.get("merge_rounding")
    if rounding is not None:
        yield Text(
            text=f"Merged into this packed base, the rounding is {number(rounding.median)} times "
            f"the change (median), max {number(rounding.max)}."
        )
    for name, reason in list(use.without.items())[:3]:
        yield Text(text=f"  no UDR for {name}: {reason}", tone="warn")
    if len(use.without) > 3:
        yield Text(text=f"  and {len(use.without) - 3} more without UDR", tone="warn")


def _suggestions(audit: AdapterAudit) -> Iterator[Text | Table]:
    if any(layer.method == "dora" for layer in audit.layers):
        yield Text(
            text="No truncations: cutting B @ A of a DoRA layer also moves its magnitude.",
            tone="dim",
        )
    shown = [s for s in _distinct(audit.suggestions) if s.parameters < audit.parameters]
    if not shown:
        return
    head = ("keep", "rank of", "rank", "parameters", "bytes", "error of dW", "worst module")
    rows = [
        (
            f"{s.energy:.0%}",
            _RULES[s.rule],
            f"{'<= ' if s.rule == 'per_module' else ''}{s.rank}",
            count(s.parameters),
            format_size(s.nbytes),
            percent(s.relative_error),
            percent(s.worst_error),
        )
        for s in shown
    ]
    extra = {
        "vLLM max_lora_rank": [
            f"{s.server_rank_before or '> 512'} -> {s.server_rank or '> 512'}"
            if s.server_rank != s.server_rank_before
            else ""
            for s in shown
        ],
        "now accepted by": [", ".join(s.clears) for s in shown],
    }
    told = {title: cells for title, cells in extra.items() if any(cells)}
    yield Table(
        title="Truncations worth testing: energy of dW to keep, by SVD, without training",
        head=(*head, *told),
        rows=tuple((*row, *(cells[i] for cells in told.values())) for i, row in enumerate(rows)),
        left=frozenset({0, 1, *(head.index("worst module") + 1 + i for i in range(len(told)))}),
        spare=("parameters", "worst module"),
        note=_NO_PROOF,
    )


def _distinct(suggestions: Sequence[Suggestion]) -> Iterator[Suggestion]:
    """One per uniform rank: the first, which asks least of the spectrum, says what it costs."""
    seen = set()
    for s in suggestions:
        if s.rule == "per_module" or s.rank not in seen:
            yield s
        if s.rule != "per_module":
            seen.add(s.rank)


def _bytes(audit: AdapterAudit) -> Iterator[Text]:
    use = audit.byte_use
    kinds = ", ".join(f"{kind} {format_size(size)}" for kind, size in use.by_kind.items())
    saved = use.tensors - use.as_bf16
    bf16 = f" Stored as bf16 it would save {format_size(saved)}." if saved else ""
    yield Text(text=f"Bytes: {kinds}.{bf16}")


def _short_names(sources: Sequence[str]) -> list[str]:
    """Sources without the directories they share."""
    parts = [source.rstrip("/").split("/") for source in sources]
    if len(parts) < 2:
        return list(sources)
    shared = 0
    while all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    return ["/".join(p[shared:]) for p in parts]
