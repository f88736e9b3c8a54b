"""The findings that comparing with a base model can bring up: one table, one place."""

from gradience.findings import Catalogue, Severity

BASE = Catalogue()
"""Kinds of finding of the comparison with a base model, by code."""

BASE_MODEL_MISMATCH = BASE.add(
    "base_model_mismatch",
    Severity.ERROR,
    "The model that was named is not the base of this adapter: names or shapes of its weights "
    "disagree, so nothing was compared with it.",
    "Name the model of `base_model_name_or_path` in adapter_config.json.",
)
BASE_MODEL_DIFFERS = BASE.add(
    "base_model_differs",
    Severity.WARNING,
    "The model that was named is not the one that the adapter records, though its weights have the "
    "same names and shapes: UDR is beside another model than the one that was trained.",
    "Name the model of `base_model_name_or_path` in adapter_config.json, if it is not the same one "
    "under another name.",
)
BASE_WEIGHTS_MISSING = BASE.add(
    "base_weights_missing",
    Severity.WARNING,
    "Some layers of the adapter have no weight of their name and shape in the base model; they "
    "have no UDR.",
    "Check the revision of the base model; name one that was saved with its head, where a head "
    "is missing.",
)
BASE_WEIGHTS_QUANTISED = BASE.add(
    "base_weights_quantised",
    Severity.WARNING,
    "Base weights are packed in a form that is not read; the norm of packed numbers says nothing "
    "of the weight.",
    "Name the model in full precision that it was quantised from.",
)
MERGE_ROUNDED_AWAY = BASE.add(
    "merge_rounded_away",
    Severity.WARNING,
    "The base is packed in so few bits that a merge into the same format rounds by more than the "
    "adapter changed (merge rounding > 1): much of the change, or all of it, is lost without an "
    "error.",
    "Merge into the base in bf16 (dequantise first, or load it unquantised) and quantise anew from "
    "there only if the task still works; or keep the adapter apart and load it beside the packed "
    "base.",
)
BASE_WEIGHTS_UNMEASURABLE = BASE.add(
    "base_weights_unmeasurable",
    Severity.ERROR,
    "Some base weights have no norm: they hold NaN or infinity, or no numbers at all.",
    "Download the base model again and compare its checksums.",
)
BASE_NORMS_UNCHECKED = BASE.add(
    "base_norms_unchecked",
    Severity.INFO,
    "Norms of the base model stand on the word of a file: they make sense, and nobody held them "
    "against the weights. UDR is as right as that file; a sample that agreed says so much of the "
    "others, and no more.",
    "Check a sample, where the model can be read, with "
    "`gradience norms import FILE --base-model MODEL`, or every one with --all.",
)
BASE_NORMS_MISSING = BASE.add(
    "base_norms_missing",
    Severity.WARNING,
    "A file of norms stands for the base model and has no norm of some weights that the adapter "
    "changes; they have no UDR.",
    "Name the model too (--base-model): what the file lacks is measured. Or have it exported after "
    "`gradience norms measure`, which measures every weight.",
)
BASE_NORMS_WIDE = BASE.add(
    "base_norms_wide",
    Severity.WARNING,
    "The interval that holds the norm of a base weight is more than ten times as wide as was asked "
    "for, so UDR has fewer digits than are shown.",
    "Measure again with a smaller --width; norms from elsewhere must be exported anew.",
)
BASE_NORMS_CACHE_CORRUPT = BASE.add(
    "base_norms_cache_corrupt",
    Severity.INFO,
    "Remembered norms of the base model could not be believed; they were measured again and the "
    "file was set right.",
    "Nothing to do; if it happens again, check the disk and what else writes there.",
)
BASE_NORMS_CACHE_UNWRITABLE = BASE.add(
    "base_norms_cache_unwritable",
    Severity.INFO,
    "The norms of the base model could not be remembered; the next audit measures them again.",
    "Free space or permissions there, or name another directory with --base-norms-cache.",
)
