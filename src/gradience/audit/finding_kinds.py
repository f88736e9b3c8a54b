"""The findings of an audit, and the table of all that `gradience audit` can report."""

from gradience.adapter.finding_kinds import READING
from gradience.audit.base.finding_kinds import (
    BASE,
    BASE_NORMS_CACHE_CORRUPT,
    BASE_NORMS_CACHE_UNWRITABLE,
)
from gradience.findings import Catalogue, Severity

HEALTH = Catalogue()
"""Kinds of finding about what was learned, by code."""

NOT_FINITE = HEALTH.add(
    "not_finite",
    Severity.ERROR,
    "Factors, a magnitude, a bias or a saved module hold NaN or infinity: the model answers NaN "
    "with this adapter.",
    "Train again from the last checkpoint that is finite, with a lower learning rate, or bf16 in "
    "place of fp16.",
)
UNTOUCHED = HEALTH.add(
    "untouched",
    Severity.ERROR,
    "Every change is exactly zero: the adapter was saved as it was initialised (B = 0), and the "
    "model answers like its base.",
    "Check that the adapter's parameters require gradients, reach the optimizer, and that the "
    "trained adapter was saved, not a new one.",
)
ZERO_FILLED = HEALTH.add(
    "zero_filled",
    Severity.ERROR,
    "Both factors are all zero bytes. No initialisation does that: it is what a full disk or a "
    "broken copy leaves in a file whose header is intact.",
    "Copy or download the file again and compare its checksum.",
)
DEAD_MODULES = HEALTH.add(
    "dead_modules",
    Severity.WARNING,
    "Some modules have a change of exactly zero while others learned.",
    "Check that they receive gradients (frozen, unused in the forward pass, or excluded from the "
    "optimizer); else leave them out of target_modules.",
)
OUTLIER_MODULES = HEALTH.add(
    "outlier_modules",
    Severity.WARNING,
    "Some modules changed more than ten times as much, or as little, as their kind.",
    "Look at the loss around them; lower the learning rate, or clip gradients.",
)
MISSING_LAYERS = HEALTH.add(
    "missing_layers",
    Severity.WARNING,
    "Some layers of an otherwise regular adapter carry no weights.",
    "Check that the save was complete and that no shard is missing.",
)
LARGE_CHANGE = HEALTH.add(
    "large_change",
    Severity.WARNING,
    "Some changes are larger than the base weight itself (UDR > 1): the base is overwritten there "
    "rather than adapted.",
    "Check alpha and the learning rate; evaluate what the model forgot.",
)
OVERWHELMING_CHANGE = HEALTH.add(
    "overwhelming_change",
    Severity.ERROR,
    "Some changes are more than ten times the base weight (UDR > 10): nothing of the base is left "
    "there. A run that diverged looks like this.",
    "Train again with a lower learning rate or alpha; check the loss for a jump.",
)
HEAD_DOMINATES = HEALTH.add(
    "head_dominates_bytes",
    Severity.WARNING,
    "Most of the bytes are a fully saved head or module, not the adapter.",
    "If the head need not be trained, leave it out of modules_to_save; rank will not save much.",
)
EMBEDDING_DOMINATES = HEALTH.add(
    "embedding_dominates_bytes",
    Severity.WARNING,
    "Most of the bytes are a fully saved embedding or output layer, not the adapter.",
    "Save with save_embedding_layers=False if the vocabulary was not resized, or train new tokens "
    "with trainable_token_indices.",
)
CACHE_UNWRITABLE = HEALTH.add(
    "audit_cache_unwritable",
    Severity.INFO,
    "The audit is complete, but could not be remembered.",
    "Free space there, or set GRADIENCE_CACHE_DIR to a directory that can be written.",
)
CACHE_CORRUPT = HEALTH.add(
    "audit_cache_corrupt",
    Severity.INFO,
    "A remembered audit could not be read; it was made anew.",
    "Nothing to do; if it comes back, check the disk.",
)

TRANSIENT = frozenset(
    kind.code
    for kind in (
        CACHE_UNWRITABLE,
        CACHE_CORRUPT,
        BASE_NORMS_CACHE_CORRUPT,
        BASE_NORMS_CACHE_UNWRITABLE,
    )
)
"""Codes of what went wrong with a cache this once: never remembered with an audit."""

AUDIT: Catalogue = Catalogue({**READING, **BASE, **HEALTH})
"""Every kind that `gradience audit` can report, by code."""
