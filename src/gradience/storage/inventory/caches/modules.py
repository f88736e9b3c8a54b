"""Code from repositories: `<modules>/transformers_modules/<org>/<name>/<commit>/*.py`."""

from gradience.storage.inventory.caches.kind import CacheKind, Listing, Look, never
from gradience.storage.inventory.caches.plain import child_entries, named, other, rest

_HOW = "Copied again from the hub cache when a model is loaded with trust_remote_code."
_LIBRARY = named("(transformers|datasets|diffusers|evaluate)_modules")


def entries(look: Look) -> Listing:
    """One entry per library and organisation."""
    libraries = [child for child in look.tree.dirs if _LIBRARY(child)]
    found = [other(look, d, "a library") for d in look.tree.dirs if d not in libraries]
    for library in libraries:
        found += child_entries(
            look,
            library,
            what="code",
            recoverable="download",
            how=_HOW,
            owns=named(".*"),
            title="a library",
            name=lambda child: f"{child.parent.name}/{child.name}" if child.parent else child.name,
        )
    return [*found, rest(look, look.tree, *libraries)], ""


MODULES = CacheKind(
    title="Remote code",
    holds="Python files of repositories that were loaded with trust_remote_code.",
    recoverable="download",
    how=_HOW,
    variable="modules",
    entries=entries,
    keep=never,
)
