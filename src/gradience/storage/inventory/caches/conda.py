"""conda's packages. Environments on the same disk are hard links into them.

A package is `<name>-<version>-<build>`, unpacked, with `info/index.json`; `cache` holds indexes.
"""

from gradience.storage.inventory.caches.plain import children
from gradience.storage.inventory.scan import Directory


def _owns(child: Directory) -> bool:
    info = child.child("info")
    package = info is not None and any(file.name == "index.json" for file in info.files)
    return package or (child.name == "cache" and not child.dirs)


CONDA = children(
    title="conda packages",
    holds="Packages that conda keeps; environments on the same disk are hard links into them.",
    what="package",
    recoverable="download",
    how="Downloaded again by conda; `conda clean --all` removes what no environment needs.",
    variable="conda",
    owns=_owns,
    keep=lambda relative: relative.count("/") == 1 and relative.endswith("/info"),
)
