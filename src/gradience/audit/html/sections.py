"""The parts of one adapter's section, in the order in which a person needs them. Pure."""

from collections.abc import Iterable, Iterator, Sequence

from gradience.audit.html import tables
from gradience.audit.html.wording import VERDICTS, ranks, summary, verdict_reason
from gradience.audit.metrics import METRICS
from gradience.audit.records import AdapterAudit, BaseUse, Stats
from gradience.findings import Finding, by_weight
from gradience.html.markup import code, escape, prose
from gradience.html.wording import figures, share
from gradience.page import count
from gradience.units import format_size, plural

_FOLDED = 200
"""Names listed below a fold before the rest is only counted."""


def headline(audit: AdapterAudit, name: str, *, level: int) -> str:
    """Name, verdict in words, and one sentence."""
    sign, word = VERDICTS[audit.verdict]
    return (
        f"<h{level}>{code(name)}</h{level}>"
        f'<p class="headline"><span class="verdict {audit.verdict}">'
        f'<span aria-hidden="true">{sign}</span> {word}</span> '
        f"<span>{escape(verdict_reason(audit))}</span></p>"
        f'<p class="summary">{escape(summary(audit))}</p>'
    )


def findings(audit: AdapterAudit) -> str:
    """The gravest first, each with what to do about it."""
    if not audit.findings:
        return (
            "<p>Nothing was found. That says that the file is sound, not that the model is "
            "good.</p>"
        )
    items = "".join(map(_finding, by_weight(audit.findings)))
    return f'<ul class="findings">{items}</ul>'


def _finding(finding: Finding) -> str:
    modules = _fold(plural(len(finding.modules), "module"), map(code, finding.modules))
    return (
        f'<li class="{finding.severity.value}"><p><strong>{finding.severity.value}</strong> '
        f"{prose(finding.message)}</p>"
        f'<p class="remedy">{prose(finding.remedy)}</p>{modules if finding.modules else ""}'
        f'<p class="code">{code(finding.code)}</p></li>'
    )


def _fold(title: str, items: Iterable[str]) -> str:
    listed = list(items)
    more = len(listed) - _FOLDED
    tail = f"<li>and {more} more</li>" if more > 0 else ""
    body = "".join(f"<li>{item}</li>" for item in listed[:_FOLDED])
    return f"<details><summary>{escape(title)}</summary><ul>{body}{tail}</ul></details>"


def key_numbers(audit: AdapterAudit) -> str:
    """A handful of numbers, each with its spread."""
    items = "".join(
        f"<div><dt>{escape(title)}</dt><dd>{escape(value)}</dd>"
        f'<dd class="spread">{escape(spread)}</dd></div>'
        for title, value, spread in _key_numbers(audit)
    )
    return f'<dl class="numbers">{items}</dl>'


def _key_numbers(audit: AdapterAudit) -> Iterator[tuple[str, str, str]]:
    use = audit.byte_use
    yield "modules", str(len(audit.layers)), ranks(audit)
    yield "parameters", count(audit.parameters), f"{audit.parameters:,}".replace(",", "\u202f")
    yield "size", format_size(use.file), " / ".join(use.by_dtype)
    for name in ("utilization", "effective_rank", "energy_rank_90", "stable_rank"):
        if name in audit.overall:
            yield METRICS[name].title, figures(audit.overall[name].median), _spread(audit, name)
    for name in ("spectral_norm", "udr"):
        if name in audit.overall:
            stats = audit.overall[name]
            yield METRICS[name].title, figures(stats.median), f"median; max {figures(stats.max)}"


def _spread(audit: AdapterAudit, name: str) -> str:
    stats: Stats = audit.overall[name]
    return f"median; {figures(stats.p10)} to {figures(stats.p90)}"


def udr_text(audit: AdapterAudit) -> str:
    """What UDR was measured against, on how many modules, and why not on the rest."""
    use = audit.base
    if use is None:
        return (
            "<p>No base model was named, so the change was not held against one. Name it with "
            "<code>--base-model ID</code>.</p>"
        )
    revision = f" at revision {code(use.revision)}" if use.revision else ""
    said = f"Measured on {use.with_udr} of {plural(len(audit.layers), 'module')}"
    stats = audit.overall.get("udr")
    if stats is not None:
        above = _above(use)
        said += (
            f": median {figures(stats.median)}, p90 {figures(stats.p90)}, "
            f"max {figures(stats.max)}; {above}"
        )
    reasons = (f"{code(name)}: {escape(why)}" for name, why in use.without.items())
    without = _fold(f"{plural(len(use.without), 'module')} without UDR", reasons)
    return (
        f"<p>Beside {code(use.model)}{revision}. {escape(said)}.</p>"
        f"{without if use.without else ''}"
    )


def _above(use: BaseUse) -> str:
    """Shares above the limits; behind the first limit that none reaches there is nothing to say."""
    some = [f"{share(part)} above {limit}" for limit, part in use.above.items() if part]
    none = [f"none above {limit}" for limit, part in use.above.items() if not part]
    return ", ".join(some + none[:1])


def bytes_text(audit: AdapterAudit) -> str:
    """How much is what, and what bfloat16 would save."""
    use = audit.byte_use
    saved = use.tensors - use.as_bf16
    bf16 = (
        f"Stored as bfloat16 the tensors would take {format_size(use.as_bf16)}: "
        f"{format_size(saved)} ({share(saved / use.tensors)}) less."
        if saved > 0
        else "Nothing in it is stored wider than bfloat16."
    )
    return (
        f"<p>{escape(format_size(use.file))} in the file, {escape(format_size(use.tensors))} of "
        f"them tensors. {escape(bf16)}</p>"
    )


def provenance(audit: AdapterAudit) -> str:
    """What exactly was audited: fingerprints decide, names only help."""
    facts = [
        ("adapter", code(audit.source)),
        ("files", ", ".join(map(code, audit.files))),
        ("fingerprint", code(audit.fingerprint)),
        ("format", f"{escape(audit.peft_type)} in the {code(audit.dialect)} dialect"),
        ("base in its config", _named(audit.recorded_base, audit.recorded_revision)),
        ("accuracy", _accuracy(audit)),
    ]
    if audit.base is not None:
        facts += [
            ("base compared with", _named(audit.base.model, audit.base.revision)),
            ("its fingerprint", code(audit.base.fingerprint)),
        ]
    items = "".join(f"<div><dt>{title}</dt><dd>{value}</dd></div>" for title, value in facts)
    return f'<dl class="definitions">{items}</dl>'


def _accuracy(audit: AdapterAudit) -> str:
    errors = [a.relative_error for a in audit.layers if a.singular_values]
    known = [error for error in errors if error is not None]
    said = (
        f"relative error of a singular value at most {max(known):.1e} (predicted)" if known else ""
    )
    lost = len(errors) - len(known)
    cancelled = f"{plural(lost, 'module')} in which B and A cancel: no digit is promised"
    return "; ".join(filter(None, [said, cancelled if lost else ""])) or "no spectrum"


def _named(model: str | None, revision: str | None) -> str:
    if model is None:
        return "not recorded"
    return code(model) + (f" at {code(revision)}" if revision else ", no revision recorded")


def suggestions(audit: AdapterAudit) -> str:
    """Truncations worth a test."""
    return tables.suggestions_table(audit)


def columns_note(audits: Sequence[AdapterAudit]) -> str:
    """Where the headings of the tables are defined."""
    return "<p>Every number is of the scaled change dW as a loader applies it.</p>" + (
        tables.definitions(audits)
    )
