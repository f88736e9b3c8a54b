"""A base model of which only a file of norms is here: enough to match an adapter and to have UDR.

Its tensors are known by name, shape and type, and cannot be read.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from gradience.audit.base.base_norm import BaseNorm
from gradience.audit.base.norms_file import METHOD, NormsFile, believable, in_full, named
from gradience.audit.base.source import BaseModel
from gradience.audit.base.weights import TensorFacts
from gradience.errors import ArtifactError, BaseModelError
from gradience.tensors.stored import StoredTensor

_FINGERPRINT = re.compile(r"blake3:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenNorms:
    """Norms of a base model that were brought from elsewhere, every one of which makes sense.

    Attributes
    ----------
    source : str
        The file, URL or Hub repository they came from.
    digest : str
        Of the file's bytes.
    content : NormsFile
    norms : mapping of str to BaseNorm
        By key of the weight; each says that this file tells it.
    """

    source: str
    digest: str
    content: NormsFile
    norms: Mapping[str, BaseNorm]

    def base(self) -> "NormsOnly":
        """The base model as far as the file knows it."""
        told = self.content
        return NormsOnly(
            model=told.model,
            name=told.model,
            revision=told.revision,
            fingerprint=told.fingerprint,
            known_by="told",
            tensors=tensors_of(told),
            tied=told.tied,
            refused=told.refused,
            aliases=told.aliases,
            source=self.source,
        )

    def check_same(self, base: BaseModel) -> None:
        """Refuse a base model whose norms these are not.

        Raises
        ------
        BaseModelError
            If its fingerprint is another.
        """
        if base.fingerprint != self.content.fingerprint:
            theirs = named(self.content.model, self.content.revision)
            raise BaseModelError(
                f"{self.source} holds norms of {theirs} ({self.content.fingerprint[:19]}...), and "
                f"{named(base.model, base.revision)} is {base.fingerprint[:19]}...",
                remedy="Leave the base model away to use the norms alone. If it is a copy of the "
                f"same weights: gradience norms import {self.source} --base-model "
                f"{in_full(base.model, base.revision)}",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class NormsOnly(BaseModel):
    """The base model of a file of norms.

    Attributes
    ----------
    source : str
        Where the norms came from.
    """

    source: str

    def tensor(self, name: str) -> StoredTensor:
        """Nothing: the numbers of the tensor are not here.

        Raises
        ------
        BaseModelError
            Always.
        """
        raise BaseModelError(
            f"{self.source} holds norms of {self.model}, not its weights: {name} cannot be read",
            remedy="Name the model itself with --base-model.",
        )


def given(content: NormsFile, *, source: str, digest: str) -> GivenNorms:
    """Norms that were read from a file, judged.

    Raises
    ------
    ArtifactError
        If they were computed by another method, or one of them makes no sense: a file that is
        wrong in one place is not believed in any other.
    """
    if content.method != METHOD:
        raise ArtifactError(
            f"{source} holds norms computed by {content.method}, not {METHOD}",
            remedy="Measure and export them again with this version.",
        )
    norms, doubts = believable(content.norms)
    if not _FINGERPRINT.fullmatch(content.fingerprint):
        doubts.insert(0, f"its fingerprint is {content.fingerprint[:80]!r}")
    if doubts:
        raise ArtifactError(
            f"{source}: {'; '.join(doubts[:3])}"
            + (f"; and {len(doubts) - 3} more" if len(doubts) > 3 else ""),
            remedy="Fetch it again from where it was exported, or measure it again.",
        )
    # Whatever the file says of where its numbers come from.
    told = {key: replace(norm, told_by=source) for key, norm in norms.items()}
    return GivenNorms(source=source, digest=digest, content=content, norms=told)


def tensors_of(content: NormsFile) -> Mapping[str, TensorFacts]:
    """Names, shapes and types of a model's tensors; of older files, those that were measured."""
    if content.tensors:
        return content.tensors
    return {
        key: TensorFacts(shape=norm.shape, dtype=norm.dtype)
        for key, norm in believable(content.norms)[0].items()
        if not key.endswith("]") and " + " not in key
    }
