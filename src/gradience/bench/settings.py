"""The settings of a bench: what a config file says, one record per part of it.

Each part that determines a trial goes into that trial's `TrialSpec` as it is, and so into its id.
Keys that are not known are refused by `config.py`, which names the key that was meant.
"""

from typing import Any, Literal

import msgspec

AlphaRule = Literal["keep_scale", "keep_alpha"]
RankRule = Literal["per_module", "uniform_median", "uniform_p90", "uniform_max"]
Precision = Literal["float32", "bfloat16", "float16"]
Schedule = Literal["linear", "cosine", "constant"]


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base model.

    Attributes
    ----------
    id : str
        A Hub id, a directory, or `package:NAME/sub/dir`, a directory inside an installed package.
    revision : str or None
        Commit, tag or branch of a Hub model; resolved to a commit before the first trial.
    dtype : str
        Type that the base weights are computed in; adapters are always trained in float32.
    """

    id: str
    revision: str | None = None
    dtype: Precision = "float32"


class TaskSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is learned and what is asked.

    Attributes
    ----------
    name : str
        A name of `gradience.bench.tasks.TASKS`.
    train, test : tuple of str
        Local files, or Hub datasets as `hub:org/name[@rev][#config]:split`. The task says which
        file formats it reads.
    options : mapping
        Of that task; it refuses what it does not know.
    """

    name: str
    train: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    options: dict[str, Any] = {}


class LoraSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The probe adapter: the one that is to be made smaller."""

    rank: int
    alpha: float
    targets: tuple[str, ...] | str
    dropout: float = 0.0
    rslora: bool = False
    modules_to_save: tuple[str, ...] = ()


class TrainSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an adapter is trained; one of `epochs` and `steps`.

    Attributes
    ----------
    warmup : float
        Share of the steps.
    """

    learning_rate: float
    batch_size: int
    epochs: float | None = None
    steps: int | None = None
    gradient_accumulation: int = 1
    schedule: Schedule = "linear"
    warmup: float = 0.06
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    precision: Precision = "float32"
    max_length: int = 512


class LadderSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way to make the probe smaller, at several sizes: a ladder, tested from the largest down.

    Attributes
    ----------
    action : str
        `truncate`: SVD of the change, no training. `heal`: truncate, then train on for
        `heal_steps`. `retrain`: from the probe's step-0 state, at the lower rank.
    ranks : tuple of int
        One rank for every module.
    energies : tuple of float
        Shares of sum sigma^2 to keep; `rule` makes ranks of them. One of `ranks` and `energies`.
    rule : str
        per_module, or one rank for all: the median, 90th percentile or maximum of the modules'.
    heal_steps : int or None
        For `heal`; a tenth of the probe's steps by default.
    learning_rate : float or None
        For `heal` and `retrain`; the probe's by default (LoRA's best rate hardly depends on its
        rank), a tenth of it for `heal`.
    alpha : str
        For `retrain`. keep_scale: alpha shrinks so that the scale (alpha/r, or alpha/sqrt(r) for
        rsLoRA) stays the probe's; keep_alpha: alpha stays.
    name : str
        Of the ladder; the action by default.
    """

    action: str
    ranks: tuple[int, ...] = ()
    energies: tuple[float, ...] = ()
    rule: RankRule = "uniform_max"
    heal_steps: int | None = None
    learning_rate: float | None = None
    alpha: AlphaRule = "keep_scale"
    name: str = ""


class EvaluationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the test items are scored.

    Attributes
    ----------
    limit : int or None
        The first so many items; None for all.
    """

    batch_size: int = 32
    limit: int | None = None


class ClaimSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What SAFE means: written down before the first trial.

    Attributes
    ----------
    margin : float
        The loss that may not be exceeded, in units of the task's score (0.025: 2.5 points of
        accuracy), for a score where more is better.
    level : float
        One-sided error: the chance to call a variant SAFE that loses just the margin.
    power : float
        The chance to call a variant SAFE that loses nothing, below which nothing is called SAFE.
    """

    margin: float
    level: float = 0.05
    power: float = 0.8


class ExecutorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where trials run.

    Attributes
    ----------
    name : str
        A name of `gradience.bench.executors.EXECUTORS`.
    workers : int or None
        Trials at once; by default as many as there are GPUs, or one on a machine without.
    options : mapping
        Of that executor.
    """

    name: str = "local"
    workers: int | None = None
    options: dict[str, Any] = {}


class BenchSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A config file, whole.

    Attributes
    ----------
    seeds : tuple of int
        One probe each.
    disk_budget : str or None
        Bytes that the output directory may hold at any time, such as `20GB`.
    """

    name: str
    model: ModelSettings
    task: TaskSettings
    lora: LoraSettings
    train: TrainSettings
    variants: tuple[LadderSettings, ...]
    seeds: tuple[int, ...]
    claim: ClaimSettings
    evaluation: EvaluationSettings = EvaluationSettings()
    executor: ExecutorSettings = ExecutorSettings()
    disk_budget: str | None = None
