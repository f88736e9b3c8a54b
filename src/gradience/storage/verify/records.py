"""The nouns of a verification: what was held against what, and what did not agree."""

import msgspec

SCHEMA = "gradience.cache_verify/v1"

PROBLEMS: dict[str, str] = {
    "wrong_size": "Its size is not the one that the commit's listing gives.",
    "truncated": "It ends before the place that its own header gives.",
    "zero_filled": "It holds zeros where data should be.",
    "wrong_hash": "Its hash is not the one that its name or the commit's listing gives.",
    "lfs_pointer": "A Git LFS pointer stands where the data should be.",
    "missing_shard": "The index of a sharded model names a file that is not there.",
    "missing_blob": "A snapshot links to a blob that is not there.",
    "unlisted_link": "A repo links to a shared blob whose list does not know it: the hub's tools "
    "would delete the blob under it.",
    "changed_locally": "It was written to after its download.",
}


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One file that is not what it should be.

    Attributes
    ----------
    code : str
        A key of `PROBLEMS`.
    path : str
        The file.
    owner : str
        The repo or directory it belongs to.
    names : tuple of str
        How snapshots call it.
    message : str
        What was expected, and what was found.
    """

    code: str
    path: str
    owner: str
    message: str
    names: tuple[str, ...] = ()


class Unchecked(msgspec.Struct, frozen=True, kw_only=True):
    """A file that could not be held against anything, or a directory not read, and why."""

    path: str
    reason: str


class Verification(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a verification found.

    Attributes
    ----------
    roots : tuple of str
        Directories that were looked at.
    files : int
        Distinct files held against a size, a header or a hash.
    by_size, by_hash : int
        How many of them against a size from a listing, and against a hash.
    bytes_read : int
    partial : mapping of str to int
        Snapshot to the number of files of its commit that were never downloaded: no damage, since
        programs fetch what they need.
    problems : tuple of Problem
    unchecked : tuple of Unchecked
        At most a hundred.
    unchecked_count : int
    deep : bool
        Whether contents were hashed.
    """

    roots: tuple[str, ...]
    files: int
    by_size: int
    by_hash: int
    bytes_read: int
    partial: dict[str, int]
    problems: tuple[Problem, ...]
    unchecked: tuple[Unchecked, ...] = ()
    unchecked_count: int = 0
    deep: bool = False
