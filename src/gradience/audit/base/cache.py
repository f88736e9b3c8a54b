"""Norms of base models, remembered: one readable file per model, revision and content.

A remembered number is believed only after it has been checked: its type, its sense (a norm is not
negative, a spectral norm is at most the Frobenius norm), and that it was measured on a weight of
this shape and type by this method, at least as finely as asked. Anything else is measured again.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from gradience import artifacts, files
from gradience.audit.base.base_norm import BaseNorm
from gradience.audit.base.finding_kinds import (
    BASE_NORMS_CACHE_CORRUPT,
    BASE_NORMS_CACHE_UNWRITABLE,
)
from gradience.audit.base.norms_file import (
    METHOD,
    SCHEMA,
    NormsFile,
    believable,
    decode,
    is_of,
    versions,
)
from gradience.audit.base.weights import BaseWeight, TensorFacts
from gradience.errors import ArtifactError, StorageError
from gradience.findings import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which base model norms belong to.

    Attributes
    ----------
    model : str
    revision : str or None
    fingerprint : str
        `blake3:...`; decides, the others are for the reader.
    tensors : mapping of str to TensorFacts
        Every tensor of the model, to be written beside its norms.
    tied : bool or None
        `tie_word_embeddings` of its config.
    refused, aliases : mapping of str to str
        See `NormsFile`.
    """

    model: str
    revision: str | None
    fingerprint: str
    tensors: Mapping[str, TensorFacts] = field(default_factory=dict, repr=False)
    tied: bool | None = None
    refused: Mapping[str, str] = field(default_factory=dict, repr=False)
    aliases: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """What a file of the cache says that can be believed.

    Attributes
    ----------
    norms : mapping of str to BaseNorm
    reasons : mapping of str to str
    doubts : tuple of str
        What could not be believed, and why.
    distrusted : frozenset of str
        Keys of entries that make sense, but not for the weight that is there.
    """

    norms: Mapping[str, BaseNorm]
    reasons: Mapping[str, str]
    doubts: tuple[str, ...] = ()
    distrusted: frozenset[str] = frozenset()

    def serves(self, weight: BaseWeight, *, width: float, eta: float) -> bool:
        """Whether this weight need not be measured: as fine as asked, or known to have no norm."""
        norm = self.norms.get(weight.key)
        if norm is None:
            return weight.key in self.reasons
        return norm.width <= width and norm.eta <= eta


def entry_path(directory: Path, identity: Identity) -> Path:
    """The file of one base model, by a name that a reader understands.

    Examples
    --------
    >>> one = Identity(model="org/tiny-7B", revision="a1b2c3d4e5", fingerprint="blake3:77ff00aa11")
    >>> entry_path(Path("base_norms"), one).as_posix()
    'base_norms/org--tiny-7B@a1b2c3d-77ff00aa.json'
    """
    name = _safe(identity.model.replace("/", "--")).lstrip(".")[:100] or "model"
    # All three may come from a file of a stranger: none may name another directory.
    revision = f"@{_safe(identity.revision[:7])}" if identity.revision else ""
    return directory / f"{name}{revision}-{_short(identity.fingerprint)}.json"


def _short(fingerprint: str) -> str:
    """What the names of all files of one content end with."""
    return _safe(fingerprint.rpartition(":")[2][:8])


def _safe(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^\w.-]", "_", text)


def recall(path: Path, identity: Identity, weights: Iterable[BaseWeight]) -> Recalled:
    """What is remembered of a base model, under whatever name; an absent file remembers nothing.

    Parameters
    ----------
    path : Path
        From `entry_path`.
    identity : Identity
    weights : iterable of BaseWeight
        Those that are asked for: an entry of another shape or type is not believed.
    """
    content, doubts = _read(path, identity.fingerprint)
    norms, bad = believable(content.norms) if content else ({}, [])
    reasons = dict(content.unmeasurable) if content else {}
    other: dict[str, str] = {}
    wanted = {weight.key: weight for weight in weights}
    for key, weight in wanted.items():
        if key in norms and not is_of(norms[key], weight):
            other[key] = f"{key}: of a weight of {norms[key].dtype} {norms[key].shape}"
            del norms[key]
    for kept in _under_other_names(path, identity.fingerprint):
        told = believable(kept.norms)[0]
        fitting = {k: n for k, n in told.items() if k in wanted and is_of(n, wanted[k])}
        norms = {**fitting, **better(norms, fitting)}
        reasons = {**kept.unmeasurable, **reasons}
    return Recalled(
        norms=norms,
        reasons=reasons,
        doubts=(*doubts, *bad, *other.values()),
        distrusted=frozenset(other),
    )


def unchecked(path: Path, content: NormsFile) -> dict[str, BaseNorm]:
    """Norms of a file that stand on the word of another, and that nobody checked under any name.

    What was measured or checked under one name is what an audit takes under every other.

    Parameters
    ----------
    path : Path
        Of the file, among the others of its cache.
    content : NormsFile
    """
    told = {key: norm for key, norm in believable(content.norms)[0].items() if norm.told_by}
    for kept in _under_other_names(path, content.fingerprint) if told else ():
        checked = {key for key, norm in believable(kept.norms)[0].items() if not norm.told_by}
        told = {key: norm for key, norm in told.items() if key not in checked}
    return told


def _under_other_names(path: Path, fingerprint: str) -> Iterator[NormsFile]:
    """What is kept of the same content under other names: a copy of a model, or its export."""
    for other in sorted(path.parent.glob(f"*-{_short(fingerprint)}.json")):
        content = None if other == path else _read(other, fingerprint)[0]
        if content is not None:
            yield content


def remember(
    path: Path,
    identity: Identity,
    norms: Mapping[str, BaseNorm],
    reasons: Mapping[str, str],
    *,
    forget: Iterable[str] = (),
    now: datetime,
) -> Finding | None:
    """Add norms to what is remembered, and set right what cannot be believed.

    Under a lock the file is read, grown and replaced as a whole: no writer loses another's norms,
    and no reader and no kill sees a part of a file.

    Parameters
    ----------
    path : Path
    identity : Identity
    norms, reasons : mapping
        By key of the weight; of two norms of one weight the better stays.
    forget : iterable of str
        Keys that were found not to be believable.
    now : datetime
        Aware.

    Returns
    -------
    Finding or None
        `base_norms_cache_unwritable` when the disk refused; the norms at hand are good.
    """
    try:
        with files.locked(path):
            content, _ = _read(path, identity.fingerprint)
            old = believable(content.norms)[0] if content else {}
            old = {key: norm for key, norm in old.items() if key not in set(forget)}
            merged = NormsFile(
                model=identity.model,
                revision=identity.revision,
                fingerprint=identity.fingerprint,
                method=METHOD,
                norms=dict(sorted((old | better(norms, old)).items())),
                unmeasurable={**(content.unmeasurable if content else {}), **reasons},
                tensors={**(content.tensors if content else {}), **identity.tensors},
                tied=identity.tied,
                refused=dict(identity.refused),
                aliases=dict(identity.aliases),
                versions=versions(),
            )
            files.replace(path, artifacts.encode(SCHEMA, merged, now=now))
    except StorageError as error:
        return BASE_NORMS_CACHE_UNWRITABLE.found(str(error))
    return None


def corrupt(path: Path, doubts: tuple[str, ...]) -> Finding:
    """The finding for what could not be believed."""
    more = f", and {len(doubts) - 3} more" if len(doubts) > 3 else ""
    return BASE_NORMS_CACHE_CORRUPT.found(
        f"{path}: {'; '.join(doubts[:3])}{more}; measured again and written anew"
    )


def better(new: Mapping[str, BaseNorm], old: Mapping[str, BaseNorm]) -> dict[str, BaseNorm]:
    """New norms, but for those of which an old one is better."""
    return {
        key: norm for key, norm in new.items() if key not in old or _merit(norm) <= _merit(old[key])
    }


def _merit(norm: BaseNorm) -> tuple[bool, float, float]:
    """Least for the best: a file may claim any width, so what was checked comes first."""
    return bool(norm.told_by), norm.width, norm.eta


def _read(path: Path, fingerprint: str) -> tuple[NormsFile | None, tuple[str, ...]]:
    """The content of a file that is of this model and method, and doubts about any other."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None, ()
    except OSError as error:
        return None, (f"it cannot be read ({error.strerror})",)
    try:
        content = decode(data, source=str(path))
    except ArtifactError as error:
        return None, (str(error).removeprefix(f"{path} "),)
    if content.fingerprint != fingerprint:
        return None, (f"it is of another content, {content.fingerprint[:23]}",)
    return (content, ()) if content.method == METHOD else (None, ())
