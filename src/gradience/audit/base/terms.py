"""On which terms the bytes of a base model may come over the network.

Ranges that are read and forgotten need no leave, unless the user set a limit. Whole files, which
are written into the Hub's cache, do: someone must say yes, and this part asks nobody itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from gradience.errors import DownloadRefusedError
from gradience.units import format_size

BYTES_STAGE = "bytes of the base"
"""The stage of which progress is told in bytes, from the thread that fetches."""


def kind_of(name: str) -> str:
    """What a file that can only be had whole is, by its name.

    Examples
    --------
    >>> kind_of("model-Q4_K_M.gguf"), kind_of("pytorch_model.bin")
    ('a GGUF file', 'a torch checkpoint')
    """
    return "a GGUF file" if name.endswith(".gguf") else "a torch checkpoint"


def hf_download(repo: str, revision: str | None, *files: str) -> str:
    """The command that puts a model of the Hub, or some files of it, into the cache.

    Examples
    --------
    >>> hf_download("org/name", "main"), hf_download("org/name", "v2", "a.gguf")
    ('hf download org/name', 'hf download org/name a.gguf --revision v2')
    """
    wanted = " ".join((repo, *files))
    at = f" --revision {revision}" if revision and revision != "main" else ""
    return f"hf download {wanted}{at}"


class WholeFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Files that can only be had whole: torch checkpoints and GGUF files.

    Attributes
    ----------
    model : str
    revision : str
        As it was asked for; empty for the default.
    names : tuple of str
        In the repository.
    nbytes : int
    into : Path
        The cache that they would be written into.
    """

    model: str
    names: tuple[str, ...]
    nbytes: int
    into: Path
    revision: str = ""

    @property
    def sentence(self) -> str:
        """What would be downloaded, how much, and where to."""
        files = self.names[0] if len(self.names) == 1 else f"{len(self.names)} files"
        return (
            f"base model {self.model}: its weights are {kind_of(self.names[0])}, which cannot be "
            f"read by range; {files} of {format_size(self.nbytes)} would be downloaded into "
            f"{self.into}"
        )


Approve = Callable[[WholeFiles], None]
"""Raises a `DownloadRefusedError` or another `StorageError` where the answer is no."""


def refuse(files: WholeFiles) -> None:
    """The answer where nobody can be asked.

    Raises
    ------
    DownloadRefusedError
    """
    raise DownloadRefusedError(
        f"{files.sentence}, and nobody said that it may",
        remedy="Add --yes (in Python: approve=lambda files: None), name a revision or a model that "
        f"has safetensors, or run: {hf_download(files.model, files.revision)}",
    )


@dataclass(slots=True, kw_only=True)
class Terms:
    """What may be fetched; one for all adapters of a run, so that its limit is the run's.

    Attributes
    ----------
    limit : int or None
        Bytes that may come over the network, headers and configs aside.
    approve : callable
        Asked before files are downloaded whole.
    """

    limit: int | None = None
    approve: Approve = refuse
    _taken: int = field(default=0, init=False)

    def take(self, nbytes: int, what: str) -> None:
        """Count what is about to be fetched.

        Parameters
        ----------
        nbytes : int
        what : str
            Names it, for the error.

        Raises
        ------
        DownloadRefusedError
            If the limit does not allow it; then nothing is counted.
        """
        if self.limit is not None and self._taken + nbytes > self.limit:
            before = f", after {format_size(self._taken)} before" if self._taken else ""
            over = self._taken + nbytes - self.limit
            raise DownloadRefusedError(
                f"{what}: {format_size(nbytes)} would come over the network{before}, "
                f"{format_size(over)} more than the {format_size(self.limit)} that may",
                remedy=f"Allow it with --max-download {-(-(self._taken + nbytes) // 10**6)}MB, or "
                "name a local copy. Norms that are remembered cost nothing.",
            )
        self._taken += nbytes
