"""What a run writes, from its settings and what was found of its model and data: pure."""

from collections.abc import Mapping
from pathlib import Path

from gradience.storage.preflight.checkpoint import Trained, adapter, full
from gradience.storage.preflight.dataset import Dataset
from gradience.storage.preflight.model import Model
from gradience.storage.preflight.optimizers import state_bytes
from gradience.storage.preflight.records import Known, Schedule, Write
from gradience.storage.preflight.settings import RunSettings

_ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}
_STATE_BYTES = 32_000  # random and scheduler states, arguments, configurations, a model card
_LOG_BYTES = 220  # of one entry in trainer_state.json
_EVENT_BYTES = 800  # of one entry in TensorBoard's file
_COMPILE_BYTES = 500_000_000
_COMPILE_FILES = 5_000
_WANDB_BYTES = 50_000_000
_CHECKPOINT_FILES = 12


def writes(
    settings: RunSettings,
    model: Model | None,
    dataset: Dataset | None,
    schedule: Schedule,
    places: Mapping[str, Path],
) -> tuple[tuple[Write, ...], tuple[str, ...]]:
    """Everything that a run writes, and what could not be known.

    Parameters
    ----------
    places : mapping of str to Path
        `hub`, `datasets`, `inductor`, `output`, `cwd`.
    """
    found: list[Write] = []
    unknown: list[str] = []
    if model is not None:
        found += _download(model, places)
        unknown += model.unknown
    if dataset is not None:
        found += _data(dataset, settings.map_copies, places)
        unknown += dataset.unknown
    saved, doubts = _saved(settings, model, schedule, places["output"])
    found += saved
    unknown += doubts
    found += _logs(settings, schedule, places)
    found += [
        Write(
            what=o.what,
            path=str(places["cwd"] / o.path),
            when=o.when,
            known="given",
            bytes=o.bytes,
            files=o.files,
        )
        for o in settings.others
    ]
    return tuple(w for w in found if w.bytes != 0), tuple(dict.fromkeys(unknown))


def assumptions(settings: RunSettings, found: tuple[Write, ...]) -> tuple[str, ...]:
    """What was taken for granted, one sentence each."""
    said = []
    if settings.adapter_rank is not None and not settings.targets:
        said.append("No targets were given: all-linear, the largest choice, was assumed.")
    said += [f"{w.what}: {w.note}." for w in found if w.known == "assumed" and w.note]
    return tuple(dict.fromkeys(said))


def _download(model: Model, places: Mapping[str, Path]) -> list[Write]:
    return [
        Write(
            what="model download",
            path=str(places["hub"]),
            when="before",
            known=model.known,
            bytes=model.download_bytes,
            files=3 * model.download_files,  # a blob, its link, its lock
            note=model.note,
        )
    ]


def _data(dataset: Dataset, copies: int, places: Mapping[str, Path]) -> list[Write]:
    arrow, left = dataset.arrow_bytes, None
    if arrow is not None:
        left = max(0, arrow * (1 + copies) - dataset.made_bytes)
        mapped = min(left, arrow * copies)
    known: Known = "unknown" if arrow is None else "assumed"
    return [
        Write(
            what="dataset download",
            path=str(places["hub"]),
            when="before",
            known=dataset.raw,
            bytes=dataset.download_bytes,
            files=3 * dataset.download_files,
        ),
        Write(
            what="dataset as Arrow",
            path=str(places["datasets"]),
            when="before",
            known=dataset.arrow,
            bytes=None if left is None else left - mapped,
            files=8,
            note=dataset.note,
        ),
        Write(
            what="copies by map()",
            path=str(places["datasets"]),
            when="before",
            known=known,
            bytes=None if left is None else mapped,
            files=4 * copies,
            note=f"{copies} x the Arrow copy",
        ),
    ]


def _saved(
    settings: RunSettings, model: Model | None, schedule: Schedule, output: Path
) -> tuple[list[Write], list[str]]:
    """The parts of a checkpoint, and what is saved in the end."""
    if model is None:
        if schedule.saves == 0:
            return [], []
        given = any(o.when == "save" for o in settings.others)
        return [], [] if given else ["no model was given, so the size of a checkpoint is not known"]
    trained, doubts = _trained(settings, model)
    state = state_bytes(settings.optimizer, trained.weights) if trained else None
    if trained and state is None:
        state = state_bytes("adamw_torch", trained.weights)
        doubts.append(f"the state of {settings.optimizer} is not known; as large as AdamW's, twice "
                      "the weights, was assumed")  # fmt: skip
    entries = (schedule.steps or 0) / max(1.0, settings.logging_steps)
    where = str(output)
    weights = None if trained is None else trained.saved_bytes
    kind = "adapter" if settings.adapter_rank is not None else "weights"
    known: Known = "unknown" if trained is None else "computed"
    parts = [
        Write(what=kind, path=where, when="save", known=known, bytes=weights, files=2,
              note=_rank(settings)),
        Write(what="optimizer state", path=where, when="save", known=known, bytes=state, files=2,
              note=settings.optimizer, optional=True),
        Write(what="tokenizer", path=where, when="save", known=model.known,
              bytes=model.tokenizer_bytes, files=4),
        Write(what="other states", path=where, when="save", known="computed",
              bytes=_STATE_BYTES + round(entries * _LOG_BYTES), files=_CHECKPOINT_FILES - 8),
    ]  # fmt: skip
    found = parts if schedule.saves != 0 else []
    if settings.save_only_model:
        found = [part for part in found if not part.optional]
    return [*found, *_exported(settings, model, weights, where)], doubts


def _trained(settings: RunSettings, model: Model) -> tuple[Trained | None, list[str]]:
    if model.tensors is None:
        return None, []
    if settings.adapter_rank is None:
        return full(model.tensors, _ITEMSIZE.get(settings.dtype or "")), []
    found = adapter(
        model.tensors,
        rank=settings.adapter_rank,
        targets=settings.targets or "all-linear",
        modules_to_save=settings.modules_to_save,
        dora=settings.dora,
    )
    if found.doubt:
        return None, [f"the size of the adapter is not known: {found.doubt}"]
    return found, []


def _exported(settings: RunSettings, model: Model, weights: int | None, where: str) -> list[Write]:
    if settings.export == "none":
        return []
    if settings.export == "merged":
        whole = full(model.tensors, _ITEMSIZE.get(settings.dtype or "")) if model.tensors else None
        weights = whole.saved_bytes if whole else None
    known: Known = "unknown" if weights is None else "computed"
    total = None if weights is None else weights + model.tokenizer_bytes
    what = "merged model" if settings.export == "merged" else "final save"
    return [Write(what=what, path=where, when="end", known=known, bytes=total, files=8)]


def _logs(settings: RunSettings, schedule: Schedule, places: Mapping[str, Path]) -> list[Write]:
    found = []
    entries = (schedule.steps or 0) / max(1.0, settings.logging_steps)
    if settings.tensorboard:
        found.append(
            Write(what="TensorBoard", path=str(places["output"]), when="run", known="assumed",
                  bytes=100_000 + round(entries * _EVENT_BYTES), files=3,
                  note=f"{_EVENT_BYTES} bytes for each log")
        )  # fmt: skip
    if settings.wandb:
        found.append(
            Write(what="W&B", path=str(places["cwd"]), when="run", known="assumed",
                  bytes=_WANDB_BYTES, files=50, note="50 MB, more with artifacts")
        )  # fmt: skip
    if settings.compile:
        found.append(
            Write(what="compile cache", path=str(places["inductor"]), when="start",
                  known="assumed", bytes=_COMPILE_BYTES, files=_COMPILE_FILES,
                  note="500 MB; it has no limit")
        )  # fmt: skip
    return found


def _rank(settings: RunSettings) -> str:
    return "" if settings.adapter_rank is None else f"rank {settings.adapter_rank}, float32"
