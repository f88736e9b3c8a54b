"""What the norms commands report: what is kept, what was checked, whose base it may be."""

from typing import Literal

import msgspec

LIST_SCHEMA = "gradience.norms_list/v1"
VERIFY_SCHEMA = "gradience.norms_verify/v1"
MATCH_SCHEMA = "gradience.norms_match/v1"
KEPT_SCHEMA = "gradience.norms_kept/v1"


class NormsEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One file of norms.

    Attributes
    ----------
    file : str
    model, revision, fingerprint
        Of the base model.
    weights : int
        Weights with norms.
    unmeasurable : int
        Weights that have none.
    unchecked : int
        Norms that were taken from a file on its word, and that nobody checked since, be it under
        another name of the same content.
    tensors : int
        Tensors of the model whose shape the file knows; 0 in files of an earlier version.
    width : float or None
        The widest interval, upper / lower - 1; None without weights.
    bytes : int
    written_at, written_by : str
    usable : bool
        Whether its method is the one of this version.
    """

    file: str
    model: str
    revision: str | None
    fingerprint: str
    weights: int
    unmeasurable: int
    tensors: int
    width: float | None
    bytes: int
    written_at: str
    written_by: str
    usable: bool
    unchecked: int = 0


class Unreadable(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is not what it should be, or a base that could not be opened."""

    name: str
    message: str


class NormsList(msgspec.Struct, frozen=True, kw_only=True):
    """The files of norms in one directory."""

    directory: str
    entries: tuple[NormsEntry, ...]
    unreadable: tuple[Unreadable, ...] = ()


class WeightCheck(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One weight, as a file tells it and as it is.

    Attributes
    ----------
    key : str
    told, seen : (lower, upper, Frobenius norm)
        `seen` is None where the weight could not be measured.
    outcome : str
        `agrees`: the intervals meet, the one told is about as narrow as it says, and the Frobenius
        norms are equal to rounding. `disagrees`: they are not. `absent`: the base has no such
        weight of this shape and type.
    reason : str
        Why it does not agree.
    proved : bool or None
        Whether the upper bound was proved, to 1e-7 of it; None where that was not asked.
    """

    key: str
    told: tuple[float, float, float]
    seen: tuple[float, float, float] | None
    outcome: Literal["agrees", "disagrees", "absent"]
    reason: str = ""
    proved: bool | None = None


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What became of checking norms against the base model.

    Attributes
    ----------
    source : str
        The file of norms.
    model, revision, fingerprint
        Of the base model, as the file tells it.
    base_model, base_revision, base_fingerprint
        Of the base model in hand.
    weights : int
        Weights with norms in the file, of which `checked` is a sample.
    seed : int
        Of the sample, and of the random starts.
    """

    source: str
    model: str
    revision: str | None
    fingerprint: str
    base_model: str
    base_revision: str | None
    base_fingerprint: str
    weights: int
    seed: int
    checked: tuple[WeightCheck, ...]

    @property
    def same_base(self) -> bool:
        """Whether the file is of exactly these files of the model."""
        return self.fingerprint == self.base_fingerprint

    @property
    def numbers_agree(self) -> bool:
        """Whether every number that was checked is right, and every proof held."""
        return bool(self.checked) and all(
            check.outcome == "agrees" and check.proved is not False for check in self.checked
        )


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What the cache holds of a base model, once norms were measured or brought.

    Attributes
    ----------
    path : str or None
        The file of this base model; None where a sample did not agree and nothing was added.
    weights : int
        Weights with norms.
    unchecked : int
        Of these, the ones on the word of a file: not measured here, and not in a sample that was.
    unmeasurable : int
        Weights that have none.
    left_out : dict of str to str
        Packed tensors, by the format they are packed in.
    bytes_read : int
        Stored bytes that had to be measured; 0 when all was there already.
    replaced : int
        Norms that stood on the word of a file, and were measured now.
    told_wrong : dict of str to str
        Of these, those that the file had told wrong, and how.
    verification : Verification or None
        The sample that was measured again, where norms were brought beside their base model.
    """

    path: str | None
    weights: int
    unchecked: int = 0
    unmeasurable: int = 0
    left_out: dict[str, str] = {}
    bytes_read: int = 0
    replaced: int = 0
    told_wrong: dict[str, str] = {}
    verification: Verification | None = None


class Candidate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A base model that an adapter may have been trained on.

    Attributes
    ----------
    model, revision, fingerprint
    known_from : tuple of str
        Where it was found: norms cache, Hub cache, named.
    fits : int
        Modules of the adapter that find a weight of their name and shape.
    coverage : float
        Share of the base's weights of the adapted kinds that are adapted; 1 where every block is.
    signature : str
        Digest of the names and shapes of the weights that the adapter changes: bases with one
        signature are alike to the adapter.
    recorded : bool
        Whether the adapter's config names this model.
    why_not : str
        Why it does not fit.
    """

    model: str
    revision: str | None
    fingerprint: str
    known_from: tuple[str, ...]
    fits: int
    coverage: float
    signature: str
    recorded: bool = False
    why_not: str = ""


class BaseMatch(msgspec.Struct, frozen=True, kw_only=True):
    """The known base models, best first, and whether one of them is the base.

    Attributes
    ----------
    adapter : str
    modules : int
        Modules of the adapter.
    recorded_base, recorded_revision
        What its config says.
    outcome : str
        `one`: only one of the known bases fits. `several`: names and shapes cannot tell between
        the first ones. `none`: no known base fits.
    alike : int
        How many of the first candidates cannot be told apart.
    candidates : tuple of Candidate
    unreadable : tuple of Unreadable
        Models that could not be looked at.
    """

    adapter: str
    modules: int
    recorded_base: str | None
    recorded_revision: str | None
    outcome: Literal["one", "several", "none"]
    alike: int
    candidates: tuple[Candidate, ...]
    unreadable: tuple[Unreadable, ...] = ()
