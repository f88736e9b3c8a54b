"""An audit as lines of a run's log, so that what the adapter learned stands beside how it did."""

from collections.abc import Sequence
from pathlib import Path

from gradience.audit.records import AdapterAudit
from gradience.errors import StorageError
from gradience.findings import Severity
from gradience.telemetry.log import RunLog, last_run_id
from gradience.telemetry.monitor import AUDIT
from gradience.telemetry.records import Metrics, Recommendation


def append_audits(path: Path, audits: Sequence[AdapterAudit]) -> None:
    """Add the summary of each audit to a log, under the run that wrote its last line.

    Warnings and errors of an audit become recommendations.

    Raises
    ------
    StorageError
        If the disk refuses a line.
    """
    log = RunLog(path, run_id=last_run_id(path))
    for audit in audits:
        values = {
            "source": audit.source,
            "verdict": audit.verdict,
            "max_rank": audit.max_rank,
            "parameters": audit.parameters,
            "modules": len(audit.layers),
            "summary": audit.summary(),
            "findings": [finding.code for finding in audit.findings],
        }
        log.add(Metrics, kind=AUDIT, values=values)
        for finding in audit.findings:
            if finding.severity != Severity.INFO:
                log.add(
                    Recommendation,
                    code=finding.code,
                    message=finding.message,
                    remedy=finding.remedy,
                    source="gradience audit",
                )
    if log.lost:
        raise StorageError(
            f"{log.lost} lines could not be added to {path}", remedy="Free space there."
        )
