"""W&B's cache: `artifacts/{obj,tmp,checksums}`, which grows without a limit; its service's logs."""

import re

from gradience.storage.inventory.caches.plain import children, named
from gradience.storage.inventory.scan import Directory

_ARTIFACTS = named("artifacts", inside="obj|tmp|checksums")
_LOG = re.compile(r"core-debug-.*\.log")


def _owns(child: Directory) -> bool:
    logs = child.name == "logs" and not child.dirs
    return _ARTIFACTS(child) or (logs and all(_LOG.fullmatch(file.name) for file in child.files))


WANDB = children(
    title="W&B cache",
    holds="Artifacts that W&B downloaded or logged.",
    what="artifacts",
    recoverable="download",
    how="Downloaded again; `wandb artifact cache cleanup 10GB` trims it.",
    variable="wandb_cache",
    owns=_owns,
    keep=lambda relative: relative == "logs",
)
