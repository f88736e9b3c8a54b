"""Whether the Hub would give a revision back: asked before it goes, never assumed."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from gradience.tensors.remote.session import no_answer

Fate = Literal["served", "gated", "private", "gone", "unknown"]
Revision = tuple[str, str, str]  # repo_type, name, commit

WORDS: dict[Fate, str] = {
    "gated": "the Hub gives it only to those whom its owner let in",
    "private": "its repository on the Hub is private",
    "gone": "the Hub does not have it any more, or does not show it to you",
    "unknown": "the Hub could not be asked",
}
_SECONDS = 5.0
_THREADS = 8
_GIVE_UP = 3  # failures after which the Hub is taken for unreachable


def fates(revisions: Iterable[Revision]) -> Mapping[Revision, Fate]:
    """Ask the Hub for each revision; "unknown" where it does not answer.

    The token, the endpoint and HF_HUB_OFFLINE are those of huggingface_hub.
    """
    wanted = tuple(dict.fromkeys(revisions))
    if not wanted:
        return {}
    from huggingface_hub import constants  # noqa: PLC0415 - 200 ms, where the Hub is asked

    if constants.HF_HUB_OFFLINE:
        return dict.fromkeys(wanted, "unknown")
    failures: list[Revision] = []

    def ask(revision: Revision) -> Fate:
        if len(failures) >= _GIVE_UP:
            return "unknown"
        fate = _ask(*revision)
        if fate == "unknown":
            failures.append(revision)
        return fate

    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(wanted, pool.map(ask, wanted), strict=True))


def unasked(revisions: Iterable[Revision]) -> Mapping[Revision, Fate]:
    """Ask nobody."""
    return dict.fromkeys(revisions, "unknown")


def _ask(repo_type: str, name: str, commit: str) -> Fate:
    from huggingface_hub import HfApi  # noqa: PLC0415
    from huggingface_hub.errors import (  # noqa: PLC0415
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        info = HfApi().repo_info(name, repo_type=repo_type, revision=commit, timeout=_SECONDS)
    except GatedRepoError:
        return "gated"
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return "gone"
    except no_answer():
        return "unknown"
    if getattr(info, "private", False):
        return "private"
    return "gated" if getattr(info, "gated", False) else "served"
