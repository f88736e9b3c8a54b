"""What a watch saw at one moment."""

import msgspec

SCHEMA = "gradience.cache_watch/v1"


class MountView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One mount at one moment.

    Attributes
    ----------
    path, fs_type : str
    free_bytes : int, optional
        What can still be written there, by the limit that binds; absent if nothing says so.
    limit : str
        Which limit binds, and how far to trust it.
    total_bytes, free_inodes : int, optional
    trend : str
        `growing`, `shrinking`, `steady`, or `unknown` while there is one sample.
    bytes_per_second, seconds_to_full, seconds_to_no_inodes : float, optional
    """

    path: str
    fs_type: str
    limit: str
    trend: str
    free_bytes: int | None = None
    total_bytes: int | None = None
    free_inodes: int | None = None
    bytes_per_second: float | None = None
    seconds_to_full: float | None = None
    seconds_to_no_inodes: float | None = None


class CacheView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One directory at one moment.

    Attributes
    ----------
    name, path, mount : str
    state : str
        `there`, `absent`, or `counting` until it was walked through once.
    trend : str
    bytes, files : int, optional
        On disk; left out unless the directory is there and was walked through.
    unfinished_bytes : int
        Of downloads and writes that have not ended.
    bytes_per_second : float, optional
    """

    name: str
    path: str
    mount: str
    state: str
    trend: str
    bytes: int | None = None
    files: int | None = None
    unfinished_bytes: int = 0
    bytes_per_second: float | None = None


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is watched, at one moment."""

    at: str
    elapsed_seconds: float
    mounts: tuple[MountView, ...]
    caches: tuple[CacheView, ...]
