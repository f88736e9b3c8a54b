"""Gradience's own files: norms of base models, finished audits, the answers of the doctor.

`undo`, the plans that take a sharing back, is nothing that could be made again.
"""

from gradience.storage.inventory.caches.plain import children, named

GRADIENCE = children(
    title="Gradience",
    holds="Norms of base models and finished audits.",
    what="records",
    recoverable="rebuild",
    how="Measured again, which reads the base model once more.",
    variable="gradience",
    owns=named("base_norms|audits|doctor"),
)
