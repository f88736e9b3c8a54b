"""Configurations in the forms that people have them, to one `Setup`.

What the contents are decides, not the name: an adapter_config.json, TrainingArguments as JSON, a
bench config, a TRL config, or the config in a run's log. Nothing is unpickled.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gradience.adapter.config import LORA_KEYS, VALUE_REMEDY, AdapterConfig, parse_config
from gradience.check.finding_kinds import VALUE_IMPOSSIBLE
from gradience.check.names import SIGNS, TRAINING, TRL, ignored
from gradience.check.records import Setup
from gradience.configs.read import read_mapping
from gradience.errors import AdapterConfigError, UsageError
from gradience.telemetry.read import Reader
from gradience.telemetry.records import NAME, RunStart

_IN_A_DIRECTORY = ("adapter_config.json", "training_args.json")

# Other names of the same fields: of a bench config, and of TRL's command line.
_ADAPTER_NAMES = {
    "rank": "r",
    "alpha": "lora_alpha",
    "targets": "target_modules",
    "dropout": "lora_dropout",
    "rslora": "use_rslora",
    "lora_r": "r",
    "lora_rank": "r",
    "lora_target_modules": "target_modules",
    "lora_modules_to_save": "modules_to_save",
}
_TRAINING_NAMES = {
    "batch_size": "per_device_train_batch_size",
    "gradient_accumulation": "gradient_accumulation_steps",
    "steps": "max_steps",
    "epochs": "num_train_epochs",
}
_FLAT_ADAPTER = (
    *("lora_r", "lora_rank", "lora_alpha", "lora_dropout"),
    *("lora_target_modules", "lora_modules_to_save", "use_rslora", "use_dora"),
)
_ADAPTERS, _TRAININGS = ("lora", "adapter", "peft"), ("train", "training")
_LORA = LORA_KEYS - {"r", "bias", "revision", "task_type"}
_OF_A_BENCH = ("schedule", "warmup", "precision", "max_length", "group_by_length")
_REMEDY = (
    "Give an adapter_config.json, TrainingArguments as JSON (args.to_json_string()), a bench or "
    "TRL config in YAML, a run.jsonl, or a directory that holds one of them."
)


def read_setup(paths: Sequence[Path]) -> Setup:
    """What several files say together; a later one wins where two say the same.

    Raises
    ------
    UsageError
        If a file is of no known form, or not there.
    AdapterConfigError, UnsupportedAdapterError, ArtifactError
        If one is of a known form and broken.
    """
    adapter: AdapterConfig | None = None
    training: dict[str, Any] = {}
    written: dict[str, str] = {}
    unread: dict[str, str] = {}
    for path in paths:
        for file in _files(path):
            found = setup_of(_content(file), str(file))
            adapter = found.adapter or adapter
            training |= found.training
            written |= found.written
            unread |= found.ignored
    return Setup(adapter=adapter, training=training, written=written, ignored=unread)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = [path / name for name in _IN_A_DIRECTORY if (path / name).is_file()]
    if not found and (path / NAME).is_file():
        found = [path / NAME]
    if not found:
        raise UsageError(
            f"{path} holds none of {', '.join((*_IN_A_DIRECTORY, NAME))}", remedy=_REMEDY
        )
    return found


def _content(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".jsonl":
        starts = [event for event in Reader(path).news() if isinstance(event, RunStart)]
        return starts[-1].config if starts else {}
    if path.suffix == ".bin":
        raise UsageError(f"{path} is a pickle, which is never opened", remedy=_REMEDY)
    found: Mapping[str, Any] = read_mapping(path, remedy=_REMEDY).data
    return found


def setup_of(content: Mapping[str, Any], source: str) -> Setup:
    """What one configuration says, in any of the known forms; `source` names it in messages.

    Raises
    ------
    UsageError, AdapterConfigError, UnsupportedAdapterError
        As `read_setup`.
    """
    adapter = next((content[k] for k in _ADAPTERS if _is_map(content, k)), None)
    training: Mapping[str, Any] = next((content[k] for k in _TRAININGS if _is_map(content, k)), {})
    unread = _unread(content, adapter, training)
    model = content.get("model")
    base = model.get("id") if isinstance(model, Mapping) else content.get("model_name_or_path")
    if adapter is None and ("peft_type" in content or ("r" in content and _any(content, _LORA))):
        adapter = content
    elif adapter is None and content.get("use_peft", True) and _any(content, _FLAT_ADAPTER):
        adapter = {name: content[name] for name in _FLAT_ADAPTER if name in content}
    if not training and _any(content, SIGNS):
        training = content
    if adapter is None and not training:
        slips = ", ".join(f"{meant} for {key}" for key, meant in unread.items() if meant)
        asked = f"; was {slips} meant?" if slips else ""
        raise UsageError(f"{source} is no configuration that is known{asked}", remedy=_REMEDY)
    return Setup(
        adapter=None if adapter is None else _adapter(adapter, base, source),
        training=_renamed(training, _TRAINING_NAMES) | _precision(training),
        written={_TRAINING_NAMES.get(name, name): name for name in training},
        ignored=unread,
    )


def _unread(
    content: Mapping[str, Any], adapter: Mapping[str, Any] | None, training: Mapping[str, Any]
) -> dict[str, str]:
    """Keys that nobody is known to read: of the sections, or of the whole where it has none."""
    if adapter is None and not training:
        return (
            ignored(content, LORA_KEYS.union(TRAINING, TRL, _FLAT_ADAPTER))
            if _is_lora(content)
            else {}
        )
    unread = ignored(training, TRAINING.union(TRL, _TRAINING_NAMES, _OF_A_BENCH))
    if adapter is not None and _is_lora(adapter):
        unread |= ignored(adapter, LORA_KEYS.union(_ADAPTER_NAMES))
    return unread


def _is_lora(adapter: Mapping[str, Any]) -> bool:
    """Whether its keys are those of LoRA; the tables know no other method's."""
    return str(adapter.get("peft_type", "LORA")) == "LORA"


def _adapter(found: Mapping[str, Any], base: object, source: str) -> AdapterConfig:
    content = {"peft_type": "LORA", **_renamed(found, _ADAPTER_NAMES)}
    if isinstance(base, str) and not content.get("base_model_name_or_path"):
        content["base_model_name_or_path"] = base
    try:
        return parse_config(content, source)
    except AdapterConfigError as error:
        if error.remedy != VALUE_REMEDY or "peft_type" in found:
            raise
        # Nothing was saved yet, and the key is that which the user wrote.
        said = str(error)
        for key in _ADAPTER_NAMES.keys() & found.keys():
            said = said.replace(f"`{_ADAPTER_NAMES[key]}` is", f"`{key}` is")
        raise AdapterConfigError(said, remedy=VALUE_IMPOSSIBLE.remedy) from error


def _precision(training: Mapping[str, Any]) -> dict[str, Any]:
    return {"fp16": True} if training.get("precision") == "float16" else {}


def _renamed(content: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in content.items()}


def _is_map(content: Mapping[str, Any], key: str) -> bool:
    return isinstance(content.get(key), Mapping)


def _any(content: Mapping[str, Any], keys: Iterable[str]) -> bool:
    return any(key in content for key in keys)
