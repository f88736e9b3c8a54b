"""The nouns of a bench: a trial and what determines it, its result, the verdict on a variant.

    config.yaml -> BenchSettings -> Trial... -> TrialResult... -> Verdict... -> BenchReport

A trial's id is a digest of its spec, and it is done when its `result.json` is there. Scores are
kept per item, so that every verdict can be computed again from the results alone.
"""

from typing import Literal

import msgspec

from gradience.bench.settings import (
    AlphaRule,
    BenchSettings,
    ClaimSettings,
    EvaluationSettings,
    LoraSettings,
    ModelSettings,
    RankRule,
    TaskSettings,
    TrainSettings,
)

SETTINGS_SCHEMA = "gradience.bench_settings/v1"
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
        Of a retrain, where the rank is known beforehand.
    alpha_rule : str or None
        Of a retrain whose ranks follow from an energy: how each module's alpha does.

    Name, ladder and step are labels: they are no part of a trial's id, so that a rank which is
    added to a ladder leaves the results of the others standing.
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
    alpha_rule: AlphaRule | None = None


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
        Digest of the spec, of what it needs, and of nothing else: `plan.trial_id`. Paths count by
        the fingerprint of what lies there.
    needs : tuple of str
        Ids of the trials whose adapter this one starts from: the probe of its seed.
    """

    id: str
    spec: TrialSpec
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How it is called for people: `truncate-r8 seed 1`."""
        return f"{self.spec.variant.name} seed {self.spec.seed}"


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
        Of the factors in it; for the int8 control those of the int8 form, one byte per number and
        a float32 scale per direction, which no adapter format holds. The yardsticks and the rungs
        of a ladder are compared by this number.
    factor_bytes_on_disk : int or None
        Of the factors as the file holds them: for the int8 control the numbers that its integers
        stand for. None in results of earlier releases, which wrote them in float32.
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
    factor_bytes_on_disk: int | None = None


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
    ran_on : str
        Its processor: `cpu, 2 threads`, or the name of the GPU. Another one adds in another order
        and rounds otherwise, so scores may differ by it.
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
    ran_on: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The verdict on one variant, from paired scores of seeds x items.

    Attributes
    ----------
    variant : str
    ladder : str
    step : int
        Its place in the ladder, from 0, the largest.
    decision : str
        SAFE: a loss of the margin is ruled out, and the test had the power to say so. NOT SAFE:
        the test could have said SAFE and did not, or a loss above the margin is shown.
        UNDERPOWERED: the test could not have told. The whole rule: docs/verdict.md.
    tested : bool
        False where its ladder stopped at a larger step, so that this one could not be SAFE.
    reason : str
        One sentence with the numbers that decided.
    difference : float
        Mean of (variant - probe) over seeds and items.
    standard_error : float
    df : float
        Satterthwaite degrees of freedom.
    lower, upper : float
        One-sided confidence bounds, each at `level`.
    p_value : float
        Of "it loses the margin or more", before adjustment.
    level : float
        What the p-value was held against.
    power : float
        Chance to show non-inferiority at no loss, from these variance components.
    per_seed : mapping of str to float
        Mean difference of each seed.
    won, lost : mapping of str to int
        Items with a higher and with a lower score than the probe's, by seed.
    components : mapping of str to float
        Variance components: seeds, items, residual.
    mcnemar_p : float or None
        Exact, two-sided, over seeds pooled; for scores of 0 and 1. A second read-out: it takes an
        item of two seeds for two items.
    bootstrap_lower, bootstrap_upper : float
        Paired bootstrap over seeds and items (clusters).
    seeds, items, clusters : int
        How many there were.
    """

    variant: str
    ladder: str
    step: int
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
    won: dict[str, int]
    lost: dict[str, int]
    components: dict[str, float]
    bootstrap_lower: float
    bootstrap_upper: float
    seeds: int
    items: int
    clusters: int
    tested: bool = True
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


class Bench(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A bench as it is planned: the content of `settings.json`.

    Attributes
    ----------
    settings : BenchSettings
        Resolved: paths absolute, a Hub model's revision a commit.
    trials : tuple of Trial
        Every trial of these settings, a probe before what needs it. Directories of other trials
        may lie beside theirs: of earlier settings, code or versions.
    accepted : mapping of str to str
        Trials whose results come from other code or versions and were accepted on demand: id to
        what differs, in words.
    earlier_claims : tuple of ClaimSettings
        What was claimed here before, when there were results already, the oldest first.
    looks : tuple of tuple of int
        The seeds behind the verdicts, each time that they were others than the time before.
    """

    settings: BenchSettings
    trials: tuple[Trial, ...]
    accepted: dict[str, str] = {}
    earlier_claims: tuple[ClaimSettings, ...] = ()
    looks: tuple[tuple[int, ...], ...] = ()


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A trial without a result."""

    trial: str
    variant: str
    seed: int
    message: str
    log: str


class TrialScore(msgspec.Struct, frozen=True, kw_only=True):
    """What a report keeps of the scores of a trial.

    Attributes
    ----------
    mean : float
        Over the items.
    digest : str
        BLAKE3 of item ids, scores and clusters, so that a change of any of them is seen.
    """

    trial: str
    variant: str
    seed: int
    mean: float
    digest: str


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """A bench, judged.

    Attributes
    ----------
    binary : bool
        Whether every score is 0 or 1, so that means are shares.
    results : tuple of TrialResult
        Without per-item scores (`items` empty): those are in the trials' own files.
    evicted : tuple of str
        Ids of trials whose adapter was removed to stay in the disk budget.
    notes : tuple of str
        What a reader must know: undertrained probes, controls that failed, seeds that are missing.
    joined_from : tuple of str
        Directories of the runs that were joined in it; empty for a report of its own trials.
    waiting : tuple of str
        Names of trials that were planned and had neither a result nor failed: while there are any,
        nothing is judged. In a joined report with the directory that planned them.
    """

    name: str
    claim: ClaimSettings
    metric: str
    binary: bool
    results: tuple[TrialResult, ...]
    scores: tuple[TrialScore, ...]
    verdicts: tuple[Verdict, ...]
    controls: tuple[Control, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    versions: dict[str, str]
    evicted: tuple[str, ...] = ()
    joined_from: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
