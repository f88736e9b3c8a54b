"""A bench as a run to hold against the disk: a trial is a step that saves and keeps its adapter.

Every trial is reckoned as large as the probe's, with its optimizer's state, which lies in its
scratch directory until the budget wants it: an upper bound.
"""

import os
from pathlib import Path

from gradience.bench.base_model import PACKAGE, base_directory
from gradience.bench.plan.trials import CONTROLS
from gradience.bench.settings import BenchSettings, LadderSettings, ModelSettings
from gradience.paths import as_path, exists
from gradience.storage.preflight.settings import RunSettings


def as_run(settings: BenchSettings, output_dir: str, *, directory: Path, home: Path) -> RunSettings:
    """What a preflight needs to know of a bench.

    Parameters
    ----------
    output_dir : str
        Where the bench keeps its trials.
    directory : Path
        That of the config file, to which its relative paths are relative.
    home : Path
        For `~`.

    Raises
    ------
    BaseModelError
        If the model lies in a package that is not installed.
    """
    hub = [source for source in settings.task.train if source.startswith("hub:")]
    dataset = hub[0].removeprefix("hub:").partition(":")[0].partition("#")[0] if hub else None
    rungs = sum(map(_rungs, settings.variants))
    return RunSettings(
        output_dir=output_dir,
        model=_model(settings.model, directory, home),
        dataset=dataset,
        adapter_rank=settings.lora.rank,
        targets=settings.lora.targets,
        modules_to_save=settings.lora.modules_to_save,
        steps=len(settings.seeds) * (1 + rungs + len(CONTROLS)),
        save_steps=1,
        export="none",
    )


def _model(model: ModelSettings, directory: Path, home: Path) -> str:
    """As a preflight takes it: a directory, or a Hub id with its revision."""
    if model.id.startswith(PACKAGE):
        return str(base_directory(model))
    path = directory / as_path(model.id, home)
    if exists(str(path)):
        return os.path.normpath(path)
    return f"{model.id}@{model.revision}" if model.revision else model.id


def _rungs(ladder: LadderSettings) -> int:
    return len(ladder.ranks) + len(ladder.energies)
