"""Code from repositories: `<modules>/transformers_modules/<org>/<name>/<commit>/*.py`."""

from gradience.storage.inventory.caches.kind import CacheKind, Listing, Look, never
from gradience.storage.inventory.caches.plain import child_entries, rest

_HOW = "Copied again from the hub cache when a model is loaded with trust_remote_code."


def entries(look: Look) -> Listing:
    """One entry per library and organisation."""
    found = []
    for library in look.tree.dirs:
        found += child_entries(
            look,
            library,
            what="code",
            recoverable="download",
            how=_HOW,
            name=lambda child: f"{child.parent.name}/{child.name}" if child.parent else child.name,
        )
    return [*found, rest(look, look.tree, *look.tree.dirs)], ""


MODULES = CacheKind(
    title="Remote code",
    holds="Python files of repositories that were loaded with trust_remote_code.",
    recoverable="download",
    how=_HOW,
    variable="modules",
    entries=entries,
    keep=never,
)
