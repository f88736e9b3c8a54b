"""The findings that reading an adapter can bring up: one table, one place."""

from gradience.findings import Catalogue, Severity

READING = Catalogue()
"""Kinds of finding of the readers, by code."""

SCALE_ASSUMED = READING.add(
    "scale_assumed",
    Severity.WARNING,
    "Nothing beside the weights says by what they are multiplied, so 1 was assumed: singular "
    "values and norms are right up to that factor, shape metrics are right.",
    "Put the adapter_config.json (or a file with `.alpha` tensors) beside the weights.",
)
ALPHA_MISSING = READING.add(
    "alpha_missing",
    Severity.WARNING,
    "The config names no alpha, so the default of the library that wrote it was taken.",
    "Write `lora_alpha` (or `alpha`) into adapter_config.json.",
)
ALPHA_AMBIGUOUS = READING.add(
    "alpha_ambiguous",
    Severity.WARNING,
    "Several keys of `alpha_pattern` match one module and name different alphas. PEFT takes the "
    "first key, and sorts the keys when it saves: the first now need not be that of the training. "
    "The scale is the one that PEFT applies when it loads this file.",
    "Write alpha_pattern with keys that do not overlap, with the values of the training.",
)
UNREAD_TENSORS = READING.add(
    "unread_tensors",
    Severity.WARNING,
    "Some tensors of the file belong to no rule that is known here; they are in no number.",
    "See which library wrote them; report the names if they should be read.",
)
WEIGHTS_SAVED_TWICE = READING.add(
    "weights_saved_twice",
    Severity.WARNING,
    "The same weights are in the file, or beside it, under two names; they are counted once.",
    "Save again with save_pretrained of the installed PEFT, into an empty directory.",
)
CONFIG_KEY_MISSPELT = READING.add(
    "config_key_misspelt",
    Severity.WARNING,
    "A key of the config is nearly one that decides the change and that is missing. PEFT passes "
    "over keys it does not know, and so does an audit: the value has no effect.",
    "Correct the key in adapter_config.json.",
)
RANK_MISMATCH = READING.add(
    "rank_mismatch",
    Severity.WARNING,
    "The tensors have another rank than the config asks for. The scale of LoRA takes that of the "
    "tensors; PEFT refuses to load such a file, and servers scale it wrongly.",
    "Set `r` and `rank_pattern` in adapter_config.json to the ranks of the tensors.",
)
DORA_DIRECTION_ONLY = READING.add(
    "dora_direction_only",
    Severity.WARNING,
    "A DoRA adapter rescales every row of the base weight; without the base model only the "
    "low-rank direction B @ A can be measured, which is not the whole change.",
    "Name the base model: --base-model ID or DIR.",
)
INIT_CHANGES_BASE = READING.add(
    "init_changes_base",
    Severity.WARNING,
    "The initialisation moved part of the base weight into the factors, so B @ A is not the "
    "change against the published base model.",
    "Convert it with model.save_pretrained(path, path_initial_model_for_weight_conversion=...).",
)
DELTA_DEPENDS_ON_INPUT = READING.add(
    "delta_depends_on_input",
    Severity.INFO,
    "The change is added for some inputs only (or gated by them); the numbers describe it where "
    "it is added in full.",
    "Nothing to do; keep it in mind when comparing with adapters that always act.",
)
LAYERS_REPLICATED = READING.add(
    "layers_replicated",
    Severity.INFO,
    "The model repeats layers of its base (`layer_replication`): layer numbers are those of the "
    "grown model, not of the base.",
    "Nothing to do; a base weight serves several layers.",
)
BASE_REVISION_MISSING = READING.add(
    "base_revision_missing",
    Severity.INFO,
    "The config names a base model and no revision of it: what it was trained on may change.",
    "Write the commit of the base model as `revision` into adapter_config.json.",
)
ALPHA_ZERO = READING.add(
    "alpha_zero",
    Severity.WARNING,
    "A stored alpha is 0: loaders that divide it by the rank (diffusers, ComfyUI) add nothing, "
    "the loader of sd-scripts takes 0 for alpha = rank and adds the full change.",
    "Write the alpha it was trained with into the `.alpha` tensors.",
)
