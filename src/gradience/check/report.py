"""A verdict as a page: record to text, pure."""

from gradience.check.records import Verdict
from gradience.findings import Severity
from gradience.page import Page, Text, Tone

_TONES: dict[str, Tone] = {"error": "bad", "warning": "warn", "info": "plain"}
_PARTS = ("adapter", "training")


def page(found: Verdict) -> Page:
    """Each finding with its remedy and its source."""
    parts = [Text(text=_headline(found), tone=_tone(found))]
    for finding in found.findings:
        words = f"{finding.severity}: {finding.message} [{finding.code}]"
        parts.append(Text(text=words, tone=_TONES[finding.severity]))
        parts.append(Text(text=f"  {finding.remedy}"))
        parts.append(Text(text=f"  Source: {finding.source}.", tone="dim"))
    if found.ignored:
        words = f"Ignored, because nothing is known to read them: {', '.join(found.ignored)}."
        parts.append(Text(text=words, tone="dim"))
    missing = [part for part in _PARTS if part not in found.judged]
    if missing:
        words = f"Not judged, because it was not given: {', '.join(missing)}."
        parts.append(Text(text=words, tone="dim"))
    return tuple(parts)


def _headline(found: Verdict) -> str:
    counts = {s: sum(f.severity == s for f in found.findings) for s in reversed(Severity)}
    plural = {s: "" if s == Severity.INFO or n == 1 else "s" for s, n in counts.items()}
    words = [f"{n} {s}{plural[s]}" for s, n in counts.items() if n]
    return f"{', '.join(found.paths)}: {', '.join(words) or 'nothing to object to'}"


def _tone(found: Verdict) -> Tone:
    gravest = max((f.severity.weight for f in found.findings), default=0)
    tones: tuple[Tone, ...] = ("good", "warn", "bad")
    return tones[gravest]
