"""What is to be run: from flags, from a file, or from a Trainer's arguments.

A file is the record below, as YAML or JSON, whose unknown keys are refused with the nearest name;
or the arguments of a Trainer as JSON (`TrainingArguments.to_json_string()`, or what the example
scripts of transformers and TRL read), told apart by `per_device_train_batch_size` and its like. Of
these the keys that say something about bytes are read and the others left alone.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from gradience.configs.document import Document
from gradience.configs.read import as_record, read_mapping
from gradience.errors import UsageError
from gradience.storage.preflight.records import Schedule

Export = Literal["none", "model", "merged"]

_TRAINER_KEYS = {
    "per_device_train_batch_size",
    "optim",
    "max_steps",
    "num_train_epochs",
    "model_name_or_path",
    "logging_strategy",
}
REMEDY = "docs/preflight.md lists the keys."
_DEFAULT_SAVE_STEPS = 500
_DEFAULT_EPOCHS = 3.0


class Other(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something else that the run writes, of given size."""

    what: str
    path: str
    bytes: int
    when: Literal["before", "start", "run", "save", "end"] = "start"
    files: int = 1


class RunSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be run; what is left out is as a Trainer has it.

    Attributes
    ----------
    output_dir : str
    model, dataset : str, optional
        A Hub id, with `@revision` if need be, or a directory; a dataset may be a file.
    adapter_rank : int, optional
        Of a LoRA adapter; without it, all weights are trained.
    targets : tuple of str, or str
        As PEFT's `target_modules`; by default `all-linear`, and that is said.
    modules_to_save : tuple of str
    dora : bool
    dtype : str, optional
        Of the weights in memory: float32, bfloat16, float16; by default that of the file.
    optimizer : str
        As `TrainingArguments.optim`.
    steps : int, optional
    epochs : float
        Used where `steps` is not given.
    batch_size : int, optional
        Examples of one optimizer step, to count steps of epochs.
    save_strategy : str
        `steps`, `epoch` or `no`.
    save_steps : float
        Below 1: a share of all steps.
    save_total_limit : int, optional
    keeps_best : bool
        The best checkpoint stays beside the last ones.
    save_only_model : bool
    logging_steps : float
    tensorboard, wandb, compile : bool
    map_copies : int
        Copies of the dataset that `map()` and its like make.
    export : str
        What is saved in the end: `none`; `model`, what was trained; `merged`, all weights.
    others : tuple of Other
        What else is written, of known size.
    """

    output_dir: str = "trainer_output"
    model: str | None = None
    dataset: str | None = None
    adapter_rank: int | None = None
    targets: tuple[str, ...] | str = ()
    modules_to_save: tuple[str, ...] = ()
    dora: bool = False
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    optimizer: str = "adamw_torch"
    steps: int | None = None
    epochs: float = _DEFAULT_EPOCHS
    batch_size: int | None = None
    save_strategy: Literal["steps", "epoch", "no"] = "steps"
    save_steps: float = _DEFAULT_SAVE_STEPS
    save_total_limit: int | None = None
    keeps_best: bool = False
    save_only_model: bool = False
    logging_steps: float = 500
    tensorboard: bool = False
    wandb: bool = False
    compile: bool = False
    map_copies: int = 1
    export: Export = "model"
    others: tuple[Other, ...] = ()


def read(path: Path) -> RunSettings:
    """Read a file of either form.

    Raises
    ------
    UsageError
        If it cannot be read, or a key is not known: the message says which was meant.
    """
    return from_document(read_mapping(path, remedy=REMEDY), source=str(path))


def from_document(document: Document, *, source: str) -> RunSettings:
    """The same, of what was read already.

    Raises
    ------
    UsageError
        If a key is not known: the message says which was meant.
    """
    if document.data.keys() & _TRAINER_KEYS:
        return from_trainer(document.data)
    return as_record(document, RunSettings, source=source, remedy=REMEDY)


def from_trainer(arguments: Mapping[str, Any] | Any) -> RunSettings:
    """The settings in a Trainer's arguments.

    Parameters
    ----------
    arguments : TrainingArguments, or mapping
        The object, its `to_dict()`, or the JSON that a training script reads (`model_name_or_path`,
        `dataset_name`, `use_peft`, `lora_r`, `lora_target_modules` are read too).

    Examples
    --------
    >>> from_trainer({"save_strategy": "epoch", "num_train_epochs": 2, "lora_r": 8}).adapter_rank
    8
    """
    if not isinstance(arguments, Mapping):
        arguments = arguments.to_dict()

    def get(*names: str, default: Any = None) -> Any:
        return next((arguments[n] for n in names if arguments.get(n) is not None), default)

    strategy = str(get("save_strategy", default="steps"))
    steps = int(get("max_steps", default=-1))
    reports = get("report_to", default=())
    reports = (reports,) if isinstance(reports, str) else tuple(reports)
    batch = get("per_device_train_batch_size", default=8)
    limit = get("save_total_limit")
    best = bool(get("load_best_model_at_end", default=False))
    peft = bool(get("use_peft", default=get("lora_r") is not None))
    targets = get("lora_target_modules", default=())
    return RunSettings(
        output_dir=str(get("output_dir", default="trainer_output")),
        model=get("model_name_or_path"),
        dataset=get("dataset_name"),
        adapter_rank=int(get("lora_r", default=16)) if peft else None,
        targets=targets if isinstance(targets, str) else tuple(targets),
        modules_to_save=tuple(get("lora_modules_to_save", default=())),
        dora=bool(get("use_dora", default=False)),
        dtype=_dtype(get("dtype", "torch_dtype")),
        optimizer=str(get("optim", default="adamw_torch")),
        steps=steps if steps > 0 else None,
        epochs=float(get("num_train_epochs", default=_DEFAULT_EPOCHS)),
        batch_size=int(batch) * int(get("gradient_accumulation_steps", default=1)),
        # "best" saves at most as often as it evaluates, and keeps its best one.
        save_strategy="no" if strategy == "no" else "epoch" if strategy == "epoch" else "steps",
        save_steps=float(
            get(
                *(("eval_steps",) if strategy == "best" else ()),
                "save_steps",
                default=_DEFAULT_SAVE_STEPS,
            )
        ),
        save_total_limit=limit if isinstance(limit, int) and limit > 0 else None,
        keeps_best=best or get("metric_for_best_model") is not None,
        save_only_model=bool(get("save_only_model", default=False)),
        logging_steps=float(get("logging_steps", default=500)),
        tensorboard="tensorboard" in reports,
        wandb="wandb" in reports,
        compile=bool(get("torch_compile", default=False)),
    )


def check(settings: RunSettings) -> None:
    """Refuse what no run can have.

    Raises
    ------
    UsageError
        Names every number that has to be above 0 and is not.
    """
    names = ["adapter_rank", "steps", "batch_size", "save_total_limit"]
    names += ["epochs"] if settings.steps is None else []
    names += ["save_steps"] if settings.save_strategy == "steps" else []
    values = {name: getattr(settings, name) for name in names}
    wrong = [f"{n} is {v:g}" for n, v in values.items() if v is not None and not v > 0]
    if wrong:
        raise UsageError(f"{', '.join(wrong)}: not above 0", remedy=REMEDY)


def schedule(settings: RunSettings, examples: int | None) -> Schedule:
    """How often the run saves.

    Parameters
    ----------
    examples : int, optional
        Of the training data; None where that is not known.

    Examples
    --------
    >>> schedule(RunSettings(steps=1200, save_total_limit=2), None)
    Schedule(steps=1200, every=500, saves=3, keeps=2)
    """
    steps = settings.steps
    if steps is None and examples is not None and settings.batch_size:
        steps = math.ceil(math.ceil(examples / settings.batch_size) * settings.epochs)
    limit = settings.save_total_limit
    keeps = max(limit, 2) if limit is not None and settings.keeps_best else limit
    if settings.save_strategy == "no":
        return Schedule(steps=steps, saves=0, keeps=keeps)
    if settings.save_strategy == "epoch":
        length = math.ceil(steps / settings.epochs) if steps and settings.epochs else None
        saves: int | None = math.ceil(settings.epochs)
        return Schedule(steps=steps, every=length, saves=saves, keeps=keeps)
    between = _every(settings.save_steps, steps)
    saves = math.ceil(steps / between) if steps is not None and between else None
    if saves is None and 0 < settings.save_steps < 1:
        saves = math.ceil(1 / settings.save_steps)
    return Schedule(steps=steps, every=between, saves=saves, keeps=keeps)


def _every(save_steps: float, steps: int | None) -> int | None:
    if save_steps >= 1:
        return int(save_steps)
    return max(1, math.ceil(steps * save_steps)) if steps is not None else None


def _dtype(value: Any) -> Literal["float32", "bfloat16", "float16"] | None:
    text = str(value).removeprefix("torch.")
    return text if text in ("float32", "bfloat16", "float16") else None  # type: ignore[return-value]
