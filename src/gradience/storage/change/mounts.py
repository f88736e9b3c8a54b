"""What of a cache others may use unseen: machines that mount it, users who may enter it."""

import fcntl
import os
from collections.abc import Iterable, Iterator

from gradience import system
from gradience.errors import StorageError
from gradience.storage.change.records import text_of
from gradience.storage.inventory.records import Cache

_LOOKED_AT = 200  # names; a cache without a file among so many is not worth more


def notes(caches: Iterable[Cache]) -> list[str]:
    """What the reader of a plan should know of the mounts that it would change."""
    caches = list(caches)
    network = [text_of(cache.root) for cache in caches if is_network(cache.root)]
    refused = {text_of(cache.root): why for cache in caches if (why := lock_refusal(cache.root))}
    found = []
    if network:
        found.append(
            f"{', '.join(network)} is on a network mount: what other machines have open, and "
            "perhaps their locks, cannot be seen. What is young is left alone: --min-age says how "
            "young."
        )
    found += [
        f"{root} is on a mount without locks (flock: {why}). Lock files count by being there, as "
        "for the Hub's client; where one tells nothing, what was written within a day is left "
        "alone."
        for root, why in refused.items()
    ]
    return found


def is_open_to_others(path: str) -> bool:
    """Whether others than its owner and root may enter a directory, and those above it."""
    while path != "/":
        try:
            if not os.stat(path).st_mode & 0o011:  # noqa: PTH116 - perhaps no UTF-8
                return False
        except OSError:
            return True
        path = os.path.dirname(path)  # noqa: PTH120
    return True


def is_network(root: str) -> bool:
    """Whether a directory is on a mount that other machines may have too."""
    try:
        return system.mount_of(root).network
    except StorageError:
        return False


def lock_refusal(root: str) -> str:
    """Why flock is refused on a mount, asked on a file that is there; "" if it is not.

    A shared lock is asked for and given back at once: that writes nothing.
    """
    for path in _files(root):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return ""
        except OSError as error:
            return error.strerror or str(error)
        else:
            return ""
        finally:
            os.close(descriptor)
    return ""


def _files(root: str) -> Iterator[str]:
    """Some regular files below a directory."""
    stack, looked_at = [root], 0
    while stack and looked_at < _LOOKED_AT:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    looked_at += 1
                    if entry.is_file(follow_symlinks=False):
                        yield entry.path
                    elif entry.is_dir(follow_symlinks=False):
                        stack.append(entry.path)
        except OSError:
            continue
