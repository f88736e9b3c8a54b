"""The nouns of a bench: a trial and what determines it, its result, the verdict on a variant.

    config.yaml -> BenchSettings -> Trial... -> TrialResult... -> Verdict... -> BenchReport

A trial's id is a digest of its spec, and it is done when its `result.json` is there. Scores are
kept per item, so that every verdict can be computed again from the results alone.
"""

from typing import Literal

import msgspec

from gradience.bench.settings import (
    ClaimSettings,
    EvaluationSettings,
    LoraSettings,
    ModelSettings,
    RankRule,
    TaskSettings,
    TrainSettings,
)

TRIAL_SCHEMA = "gradience.trial/v1"
RESULT_SCHEMA = "gradience.trial_result/v1"
REPORT_SCHEMA = "gradience.bench/v1"

PROBE = "probe"
"""Name of the variant that is the probe itself."""

Decision = Literal["SAFE", "NOT SAFE", "UNDERPOWERED"]


class Variant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the adapter of a trial comes about.

    Attributes
    ----------
    name : str
        Unique in a bench: `probe`, `truncate-r8`, `heal-e0.9-per_module`, `control-int8`.
    action : str
        A name of `gradience.bench.actions.ACTIONS`: probe, truncate, heal, retrain; the controls
        resave, bf16, int8, random.
    ladder : str
        The fixed sequence it is tested in; empty for the probe and the controls.
    step : int
        Its place in that sequence, from 0, the largest.
    rank : int or None
        One rank for every module.
    energy : float or None
        Share of sum sigma^2 to keep, of which `rule` makes ranks.
    steps : int or None
        Optimizer steps of a heal.
    learning_rate : float or None
        Of a heal or a retrain.
    alpha : float or None
        Of a retrain.
    """

    name: str
    action: str
    ladder: str = ""
    step: int = 0
    rank: int | None = None
    energy: float | None = None
    rule: RankRule | None = None
    steps: int | None = None
    learning_rate: float | None = None
    alpha: float | None = None


class TrialSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that determines the numbers of a trial, and nothing else.

    Attributes
    ----------
    base : str
        Fingerprint of the base model's files.
    data : mapping of str to str
        Fingerprint of every file of the task, train and test, by the name in the settings.
    versions : mapping of str to str
        Of Python and the libraries that the numbers depend on.
    code : str
        Fingerprint of Gradience's own modules that the numbers depend on.
    device : str
        Kind of device that was asked for: "cpu", "cuda".
    """

    model: ModelSettings
    task: TaskSettings
    lora: LoraSettings
    train: TrainSettings
    evaluation: EvaluationSettings
    variant: Variant
    seed: int
    base: str
    data: dict[str, str]
    versions: dict[str, str]
    code: str
    device: str


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One adapter to make and to evaluate.

    Attributes
    ----------
    id : str
        Digest of the spec, and of what it needs.
    needs : tuple of str
        Ids of the trials whose adapter this one starts from: the probe of its seed.
    """

    id: str
    spec: TrialSpec
    needs: tuple[str, ...] = ()


class Items(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Scores of the test items, column-wise.

    Attributes
    ----------
    ids : tuple of str
        Unique, in the order of the test data; equal over all trials of a bench.
    scores : tuple of float
        More is better: 1 for right and 0 for wrong, or minus the loss.
    clusters : tuple of str
        What items share (a passage, a document); empty where items are independent.
    """

    ids: tuple[str, ...]
    scores: tuple[float, ...]
    clusters: tuple[str, ...] = ()


class AdapterFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The adapter of a trial, as it was written.

    Attributes
    ----------
    ranks : mapping of str to int
        By module, read back from the file.
    scale : mapping of str to float
        What the loader multiplies B @ A with, by module, read back from the file.
    parameters : int
        Of the factors.
    nbytes : int
        Of the weights file.
    factor_bytes : int
        Of the factors in it.
    fingerprint : str
        Of weights and config.
    relative_error : float or None
        ||dW - dW'||_F / ||dW||_F against the probe, for what was made from the probe's weights.
    """

    ranks: dict[str, int]
    scale: dict[str, float]
    parameters: int
    nbytes: int
    factor_bytes: int
    fingerprint: str
    relative_error: float | None = None


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """How a training went.

    Attributes
    ----------
    losses : tuple of float
        Mean training loss of at most 50 equal stretches of the run, first to last.
    still_falling : bool
        Whether the loss was still falling clearly at the end: the adapter is undertrained. The
        rule stands where it is computed.
    """

    steps: int
    seconds: float
    losses: tuple[float, ...]
    still_falling: bool
    learning_rate: float
    alpha: float


class TrialResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a trial: written once, atomically, when all of it is known.

    Attributes
    ----------
    metric : str
        What a score is: "accuracy", "exact_match", "negative log-likelihood per token".
    before : float or None
        Mean score of the base model without the adapter (the probe's step-0 state), for a probe.
    audit : mapping of str to float, int or str
        Summary of the audit of the adapter.
    seconds : float
        Of the whole trial.
    peak_bytes : int
        Largest resident memory of its process.
    """

    trial: Trial
    metric: str
    items: Items
    adapter: AdapterFacts
    seconds: float
    peak_bytes: int
    finished_at: str
    training: Training | None = None
    before: float | None = None
    audit: dict[str, float | int | str] = {}


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The verdict on one variant, from paired scores of seeds x items.

    Attributes
    ----------
    variant : str
    decision : str
        SAFE: a loss of the margin is ruled out, and the test had the power to say so. NOT SAFE:
        the test could have said SAFE and did not, or a loss above the margin is shown.
        UNDERPOWERED: the test could not have told.
    reason : str
        One sentence with the numbers that decided.
    difference : float
        Mean of (variant - probe) over seeds and items.
    standard_error : float
    df : float
        Satterthwaite degrees of freedom.
    lower, upper : float
        One-sided confidence bounds, each at the level that the multiplicity rule leaves.
    p_value : float
        Of "it loses the margin or more", before adjustment.
    level : float
        What the p-value was held against.
    power : float
        Chance to show non-inferiority at no loss, from these variance components.
    per_seed : mapping of str to float
        Mean difference of each seed.
    components : mapping of str to float
        Variance components: seeds, items, residual.
    mcnemar_p : float or None
        Exact, two-sided, over seeds pooled; for scores of 0 and 1.
    bootstrap_lower, bootstrap_upper : float
        Paired bootstrap over seeds and items (clusters).
    seeds, items, clusters : int
        How many there were.
    """

    variant: str
    decision: Decision
    reason: str
    difference: float
    standard_error: float
    df: float
    lower: float
    upper: float
    p_value: float
    level: float
    power: float
    per_seed: dict[str, float]
    components: dict[str, float]
    bootstrap_lower: float
    bootstrap_upper: float
    seeds: int
    items: int
    clusters: int
    mcnemar_p: float | None = None


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """What a control had to show, and whether it did.

    Attributes
    ----------
    passed : bool or None
        None where it is a yardstick (bf16, int8) and has nothing to pass.
    """

    variant: str
    expectation: str
    passed: bool | None
    observed: str


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A trial without a result."""

    trial: str
    variant: str
    seed: int
    message: str
    log: str


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """A bench, judged.

    Attributes
    ----------
    results : tuple of TrialResult
        Without per-item scores (`items` empty): those are in the trials' own files.
    notes : tuple of str
        What a reader must know: undertrained probes, controls that failed, seeds that are missing.
    """

    name: str
    claim: ClaimSettings
    metric: str
    results: tuple[TrialResult, ...]
    verdicts: tuple[Verdict, ...]
    controls: tuple[Control, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    versions: dict[str, str]
