"""What the Hub has under a name, believed only where it is an answer that the Hub can give.

huggingface_hub reads an answer without looking at it. On a network that answers everything with its
own page, or from a mirror that leaves something out, it raises whatever that comes to.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gradience.hub_ids import COMMIT
from gradience.tensors.remote.range_file import OPENING_PAUSES, PAUSES
from gradience.tensors.remote.session import NO_ANSWER, answer_seconds, may_pass, transport_errors


class NotTheHubError(ConnectionError):
    """What answered is not the Hub; one of `transport_errors()`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubListing:
    """A model repository at one commit.

    Attributes
    ----------
    commit : str
    sizes : mapping of str to int or None
        Bytes of every file by its name; None where it was not said.
    """

    commit: str
    sizes: Mapping[str, int | None]


def hub_listing(
    repo: str, revision: str, *, sizes: bool = False, enough: Callable[[], bool] = lambda: False
) -> HubListing:
    """Ask the Hub for a model: again where it stumbles, not where nobody answers.

    Parameters
    ----------
    repo, revision : str
    sizes : bool
        Whether those of its files are wanted.
    enough : callable
        Asked after a stumble: True where there is an answer without the Hub.

    Raises
    ------
    One of `transport_errors()`
        `NotTheHubError` where the answer makes no sense.
    """
    for pause in PAUSES[:OPENING_PAUSES]:
        try:
            return _asked(repo, revision, sizes)
        except transport_errors() as error:
            if not may_pass(error) or enough():
                raise
        time.sleep(pause)
    return _asked(repo, revision, sizes)


def _asked(repo: str, revision: str, sizes: bool) -> HubListing:
    from huggingface_hub import HfApi, constants  # noqa: PLC0415 - only where the Hub is asked
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415 - as above

    try:
        info = HfApi().model_info(
            repo, revision=revision, files_metadata=sizes, timeout=answer_seconds()
        )
        commit = str(info.sha)
        found = {file.rfilename: file.size for file in info.siblings or ()}
    except HFValidationError:
        raise
    except NO_ANSWER as error:
        raise NotTheHubError(f"what answers at {constants.ENDPOINT} is not the Hub") from error
    meant = COMMIT.fullmatch(revision) is None or commit == revision
    if meant and COMMIT.fullmatch(commit) and all(map(_is_file, found.items())):
        return HubListing(commit=commit, sizes=found)
    raise NotTheHubError(f"what {constants.ENDPOINT} answers is not what the Hub would")


def _is_file(file: tuple[object, object]) -> bool:
    """Whether that can be the name and size of a file in a repository."""
    name, size = file
    parts = name.split("/") if isinstance(name, str) else [""]
    return not {"", ".", ".."} & set(parts) and (size is None or (type(size) is int and size >= 0))
