"""W&B's run directories: `./wandb/run-*` and `./wandb/offline-run-*` where training was started."""

from gradience.storage.inventory.caches.kind import CacheKind, Listing, Look, never
from gradience.storage.inventory.caches.plain import named, other, rest, whole
from gradience.storage.inventory.records import Entry
from gradience.storage.inventory.scan import Directory

_SYNCED = "Logs and configs of a run; the server has a copy unless the run was cut off."
_OFFLINE = "A run that was never uploaded: this is the only copy until `wandb sync`."
_OWNS = named(r"(offline-)?run-\d{8}_\d{6}-.+")  # sdk/wandb_settings.py: mode, time, id


def entries(look: Look) -> Listing:
    """One entry per run."""
    found = [
        _run(look, child) if _OWNS(child) else other(look, child, "W&B") for child in look.tree.dirs
    ]
    return [*found, rest(look, look.tree)], ""


def _run(look: Look, run: Directory) -> Entry:
    offline = run.name.startswith("offline-run-")
    return whole(
        look,
        run,
        what="run",
        name=run.name,
        recoverable="lost" if offline else "unknown",
        how=_OFFLINE if offline else _SYNCED,
    )


WANDB_RUNS = CacheKind(
    title="W&B runs",
    holds="Logs, configs and media of runs that were started in this directory.",
    recoverable="unknown",
    how=_SYNCED,
    variable="wandb_runs",
    entries=entries,
    keep=never,
)
