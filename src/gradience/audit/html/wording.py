"""What the report and the notebook say of an adapter in words. Pure."""

from collections import Counter

from gradience.audit.records import AdapterAudit, Verdict
from gradience.findings import Severity
from gradience.html.wording import figures
from gradience.page import count
from gradience.units import format_size, plural

VERDICTS: dict[Verdict, tuple[str, str]] = {
    "healthy": ("✓", "Healthy"),
    "look": ("!", "Needs a look"),
    "broken": ("✕", "Broken"),
}
"""Sign and words: the colour repeats what both say."""

NO_PROOF = (
    "The error is that of the change dW, exact by Eckart and Young. A spectrum is no proof of "
    "safety: that the model stays as good is shown by evaluating it on your task."
)


def verdict_reason(audit: AdapterAudit) -> str:
    """Why the verdict is what it is: `1 error and 2 warnings`."""
    severities = Counter(finding.severity for finding in audit.findings)
    parts = [
        plural(severities[severity], severity.value)
        for severity in (Severity.ERROR, Severity.WARNING)
        if severities[severity]
    ]
    return " and ".join(parts) or "no errors and no warnings"


def ranks(audit: AdapterAudit) -> str:
    """`rank 16`, or `ranks 4 to 64`."""
    found = sorted({layer.rank for layer in audit.layers})
    if not found:
        return "no rank"
    return f"rank {found[0]}" if len(found) == 1 else f"ranks {found[0]} to {found[-1]}"


def base_name(audit: AdapterAudit) -> str:
    """The base model that the config names, else the one compared with, with its revision."""
    if audit.recorded_base:
        return _at(audit.recorded_base, audit.recorded_revision)
    if audit.base is not None:
        return _at(audit.base.model, audit.base.revision)
    return "an unrecorded base"


def summary(audit: AdapterAudit) -> str:
    """One sentence: what it is, how large, and how large beside its base."""
    blocks = f" in {plural(len(audit.by_block), 'block')}" if audit.by_block else ""
    sentence = (
        f"{audit.method} on {base_name(audit)}: {plural(len(audit.layers), 'module')}{blocks}, "
        f"{ranks(audit)}, {count(audit.parameters)} parameters, "
        f"{format_size(audit.byte_use.file)}"
    )
    udr = audit.overall.get("udr")
    if udr is not None:
        sentence += f"; median UDR {figures(udr.median)} over {plural(udr.count, 'module')}"
    return sentence + "."


def _at(model: str, revision: str | None) -> str:
    return f"{model}@{revision[:12]}" if revision else model
