"""conda's packages. Environments on the same disk are hard links into them.

A package is `<name>-<version>-<build>`, unpacked, with a directory `info`; `cache` holds indexes.
"""

from gradience.storage.inventory.caches.plain import children

CONDA = children(
    title="conda packages",
    holds="Packages that conda keeps; environments on the same disk are hard links into them.",
    what="package",
    recoverable="download",
    how="Downloaded again by conda; `conda clean --all` removes what no environment needs.",
    variable="conda",
    owns=lambda child: child.name == "cache" or child.child("info") is not None,
)
