"""What a notebook shows of an audit: a static fragment, without scripts and without a style sheet.

Notebooks strip scripts and share one page among many outputs, so every style is inline and takes
its colours from what surrounds it: borders and muted text are the text colour, made lighter.
"""

from collections.abc import Iterator

from gradience.audit.html.wording import VERDICTS, summary, verdict_reason
from gradience.audit.metrics import METRICS
from gradience.audit.records import AdapterAudit, Group
from gradience.findings import by_weight
from gradience.html.markup import code, escape, prose
from gradience.html.wording import figures, share
from gradience.page import count
from gradience.units import format_size

_FINDINGS = 5
_LINE = "border-bottom:1px solid rgba(127,127,127,.35)"
_CELL = f"padding:.25em .7em;{_LINE};font-variant-numeric:tabular-nums"
# Mid tones that keep a contrast above 3 to white and to black, behind words that say the same.
_MARKS = {"healthy": "#2e8b57", "look": "#b8860b", "broken": "#d1453b"}


def to_html(audit: AdapterAudit) -> str:
    """A small fragment that reads on a light and on a dark page.

    Parameters
    ----------
    audit : AdapterAudit

    Returns
    -------
    str
        HTML in which every text of the adapter is escaped.
    """
    return "".join(_parts(audit))


def _parts(audit: AdapterAudit) -> Iterator[str]:
    sign, word = VERDICTS[audit.verdict]
    yield '<div class="gradience-audit" style="max-width:60em;line-height:1.45">'
    yield (
        f'<p style="margin:.3em 0"><strong>{code(audit.source)}</strong> &nbsp; '
        f'<strong style="border-left:.35em solid {_MARKS[audit.verdict]};padding-left:.4em">'
        f"{sign} {word}</strong> {escape(verdict_reason(audit))}</p>"
        f'<p style="margin:.3em 0">{escape(summary(audit))}</p>'
    )
    yield _findings(audit)
    yield _types(audit)
    yield _truncation(audit)
    yield "</div>"


def _findings(audit: AdapterAudit) -> str:
    items = [
        f"<li><strong>{finding.severity.value}</strong> {prose(finding.message)} "
        f'<span style="opacity:.7">{prose(finding.remedy)} {code(finding.code)}</span></li>'
        for finding in by_weight(audit.findings)[:_FINDINGS]
    ]
    more = len(audit.findings) - len(items)
    if more > 0:
        items.append(f"<li>and {more} more in <code>.findings</code></li>")
    return f'<ul style="margin:.3em 0">{"".join(items)}</ul>' if items else ""


def _types(audit: AdapterAudit) -> str:
    shown = [name for name, m in METRICS.items() if m.column and name in audit.overall]
    head = ["type", "modules", "parameters", "energy", *(METRICS[name].title for name in shown)]
    titles = "".join(_cell(title, head=True, first=i == 0) for i, title in enumerate(head))
    rows = "".join(f"<tr>{''.join(_row(group, shown))}</tr>" for group in audit.by_type)
    return (
        '<div style="overflow-x:auto"><table style="border-collapse:collapse;margin:.5em 0">'
        f"<thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table></div>"
        '<p style="margin:.3em 0;opacity:.7">Medians over the modules of each type.</p>'
    )


def _row(group: Group, shown: list[str]) -> Iterator[str]:
    yield _cell(group.name, first=True)
    yield _cell(str(group.layers))
    yield _cell(count(group.parameters))
    yield _cell(share(group.energy_share))
    for name in shown:
        stats = group.stats.get(name)
        yield _cell(figures(stats.median) if stats else "-")


def _cell(text: str, *, head: bool = False, first: bool = False) -> str:
    tag = "th" if head else "td"
    side = "left" if first else "right"
    return f'<{tag} style="text-align:{side};{_CELL}">{escape(text)}</{tag}>'


def _truncation(audit: AdapterAudit) -> str:
    """The smallest truncation that keeps 99 % of the energy, as one sentence."""
    strict = [s for s in audit.suggestions if s.energy >= 0.99]
    if not strict:
        return ""
    least = min(strict, key=lambda s: s.nbytes)
    return (
        f'<p style="margin:.3em 0">Worth testing: truncate to rank {least.rank} '
        f"({escape(least.rule.replace('_', ' '))}, {least.energy:.0%} of the energy): "
        f"{escape(format_size(least.nbytes))} of factors, error of dW "
        f"{escape(share(least.relative_error))}. A spectrum is no proof of safety.</p>"
    )
