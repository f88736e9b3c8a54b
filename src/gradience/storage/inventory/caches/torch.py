"""TORCH_HOME: `hub/checkpoints/*.pth` (weights), `hub/<owner_repo_branch>` (code), `kernels`."""

from gradience.storage.inventory.caches.kind import CacheKind, Listing, Look
from gradience.storage.inventory.caches.plain import file_entries, other, rest, whole
from gradience.storage.inventory.records import Entry
from gradience.storage.inventory.scan import Directory

_HOW = "Downloaded again by torch.hub on next use."


def entries(look: Look) -> Listing:
    """One entry per weights file, per repository of code, and per other directory."""
    found: list[Entry] = []
    plain = [look.tree]
    for directory in look.tree.dirs:
        if directory.name != "hub":
            found.append(_other(look, directory))
            continue
        plain.append(directory)
        for child in directory.dirs:
            if child.name == "checkpoints":
                found += _weights(look, child)
            elif any(file.name == "hubconf.py" for file in child.files):
                found.append(_code(look, child))
            else:
                found.append(other(look, child, "torch.hub", f"hub/{child.name}"))
    return [*found, rest(look, *plain)], ""


def _weights(look: Look, directory: Directory) -> list[Entry]:
    found = file_entries(look, directory, what="weights", recoverable="download", how=_HOW)
    found += [other(look, d, "torch.hub", f"{directory.name}/{d.name}") for d in directory.dirs]
    return [*found, rest(look, directory, files=False)]


def _code(look: Look, directory: Directory) -> Entry:
    return whole(
        look, directory, what="repo", name=directory.name, recoverable="download", how=_HOW
    )


def _other(look: Look, directory: Directory) -> Entry:
    if directory.name != "kernels":
        return other(look, directory, "torch.hub")
    return whole(
        look,
        directory,
        what="kernels",
        name=directory.name,
        recoverable="rebuild",
        how="Compiled again on first use.",
    )


TORCH = CacheKind(
    title="torch hub",
    holds="Weights and code that torch.hub and torchvision downloaded.",
    recoverable="download",
    how=_HOW,
    variable="torch",
    entries=entries,
    keep=lambda relative: relative.startswith("hub/") and relative.count("/") == 1,
)
