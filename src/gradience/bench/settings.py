"""The settings of a bench: what a config file says, one record per part of it.

Each part that determines a trial goes into that trial's `TrialSpec` as it is, and so into its id.
Keys that are not known are refused by `config.py`, which names the key that was meant.
"""

from typing import Any, Literal

import msgspec

AlphaRule = Literal["keep_scale", "keep_alpha"]
RankRule = Literal["per_module", "uniform_median", "uniform_p90", "uniform_max"]
Precision = Literal["float32", "bfloat16", "float16"]
Device = Literal["cpu", "cuda"]
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
        One of the tasks below: classification, gsm8k, perplexity, lm_eval.
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
    """The probe adapter: the one that is to be made smaller.

    Attributes
    ----------
    rank : int
        Of every module; the variants' ranks are below it.
    alpha : float
        The scale of the change is alpha / rank, or alpha / sqrt(rank) with `rslora`.
    targets : tuple of str, or str
        PEFT's `target_modules`: names of modules or their ends; or one regular expression for the
        whole name; or `all-linear`.
    dropout : float
        Of the adapter's input while it is trained.
    rslora : bool
        Rank-stabilised LoRA (arXiv:2312.03732).
    modules_to_save : tuple of str
        Modules that are trained whole and saved with the adapter; a classifier's head always is.
    """

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
    learning_rate : float
        The highest of the schedule; the optimizer is AdamW.
    batch_size : int
        Examples of one forward pass.
    epochs : float or None
        Passes over the training data.
    steps : int or None
        Optimizer steps.
    gradient_accumulation : int
        Forward passes of one optimizer step.
    schedule : str
        linear, cosine or constant, after the warm-up.
    warmup : float
        Share of the steps.
    weight_decay : float
        Of AdamW.
    max_grad_norm : float
        Gradients are clipped to this norm.
    precision : str
        float32; bfloat16 or float16 with automatic mixed precision.
    max_length : int
        Longest input in tokens, in training and in evaluation; what is longer is cut.
    group_by_length : bool
        Batches of examples of like length, still in random order: less padding, and on short texts
        half the time.
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
    group_by_length: bool = False


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
    batch_size : int
        Items of one forward pass. It may change last digits, so it is part of what determines a
        trial.
    limit : int or None
        The first so many items; all by default.
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
        The chance that the test passes for a variant that loses nothing, below which nothing is
        called SAFE.
    looks : int
        How often a verdict may be computed, each time with more seeds. Each look has its part of
        the level, so that over all of them the chance of a false SAFE is the level.
    """

    margin: float
    level: float = 0.05
    power: float = 0.8
    looks: int = 1

    @property
    def level_of_look(self) -> float:
        """What the ladders of one look share.

        Equal parts (Bonferroni): looks share the items and most of the seeds, by how much nobody
        knows, and a sum of levels holds whatever they share.
        """
        return self.level / self.looks

    def words(self) -> str:
        """The claim in a line."""
        looks = f", {self.looks} looks" if self.looks > 1 else ""
        return f"margin {self.margin}, level {self.level}, power {self.power}{looks}"


class ExecutorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where trials run.

    Attributes
    ----------
    name : str
        One of the executors below.
    workers : int or None
        Trials at once; by default as many as there are GPUs, or one on a machine without.
    device : str or None
        `cpu` or `cuda`: part of what determines a trial. By default `cuda` where this machine has
        an NVIDIA GPU.
    options : mapping
        Of that executor.
    """

    name: str = "local"
    workers: int | None = None
    device: Device | None = None
    options: dict[str, Any] = {}


class BenchSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A config file, whole.

    Attributes
    ----------
    name : str
        What the report is called.
    model, task, lora, train, claim, evaluation, executor
        Below.
    variants : tuple
        The ladders, below; the controls always run beside them.
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
