"""The findings of the doctor, each under the trouble that brought the user here.

The four troubles are the error messages that people search for; damage and the rest have a heading
of their own. A remedy of a finding is a command line: what follows `#` on it is for the reader.
"""

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from gradience.findings import Catalogue, Finding, FindingKind, Severity

DOCTOR = Catalogue()
"""Every kind that `gradience doctor` can report, by code."""


class Trouble(StrEnum):
    """What the user would have met."""

    SPACE = "No space left on device, or disk quota exceeded"
    PERMISSION = "Permission denied"
    VARIABLES = "Variables without effect"
    DUPLICATES = "The same model downloaded many times"
    DAMAGE = "Files that are broken"
    OTHER = "Worth knowing"


class SetVariable(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A variable that a file sets; `value` is None where only the run computes it."""

    name: str
    file: str
    line: int
    value: str | None = None


class VariablesFinding(Finding, frozen=True, kw_only=True):
    """A finding about several variables that one command mends."""

    variables: tuple[SetVariable, ...]


def found_together(
    kind: FindingKind, message: str, *, variables: Iterable[SetVariable], remedy: str
) -> VariablesFinding:
    """Make one finding of all these variables."""
    return VariablesFinding(
        code=kind.code,
        severity=kind.severity,
        message=message,
        remedy=remedy,
        variables=tuple(variables),
    )


TROUBLE_OF: dict[str, Trouble] = {}
"""The trouble that each code belongs to."""


def _add(trouble: Trouble, code: str, severity: Severity, meaning: str, remedy: str) -> FindingKind:
    TROUBLE_OF[code] = trouble
    return DOCTOR.add(code, severity, meaning, remedy)


_ERROR, _WARNING, _INFO = Severity.ERROR, Severity.WARNING, Severity.INFO

SPACE_LOW = _add(
    Trouble.SPACE,
    "space_low",
    _WARNING,
    "Little space is left where a library writes; an error below 1 GB.",
    "Free space there, or move the cache to a larger disk.",
)
QUOTA_LOW = _add(
    Trouble.SPACE,
    "quota_low",
    _WARNING,
    "A quota, which `df` does not show, leaves little space where a library writes.",
    "Free space there, ask for a larger quota, or move the cache.",
)
INODES_LOW = _add(
    Trouble.SPACE,
    "inodes_low",
    _WARNING,
    "Few files can still be made: the disk is full although bytes are free.",
    "Delete directories of many small files, such as old environments and compile caches.",
)
SMALL_DISK = _add(
    Trouble.SPACE,
    "cache_on_small_disk",
    _WARNING,
    "A cache lies on a small disk while a much larger one is there.",
    "Point the cache to the larger disk before the libraries start.",
)
MEMORY_DISK = _add(
    Trouble.SPACE,
    "cache_in_memory",
    _WARNING,
    "A cache lies on a file system in memory: it takes RAM and is gone after a restart.",
    "Point it to a directory on a disk.",
)
TEMPORARY_MEMORY = _add(
    Trouble.SPACE,
    "temporary_in_memory",
    _WARNING,
    "Temporary files and what is compiled lie in memory, where large ones end the process.",
    "Set TMPDIR to a directory on a local disk.",
)
TEMPORARY_MISSING = _add(
    Trouble.SPACE,
    "temporary_missing",
    _WARNING,
    "TMPDIR names a directory that is not there: Python silently uses another one.",
    "Create the directory.",
)
LEFTOVERS = _add(
    Trouble.SPACE,
    "leftovers",
    _INFO,
    "Parts of interrupted downloads, blobs without a snapshot, temporary files of dead writers: "
    "nothing uses them again. A warning above 1 GB.",
    "Remove them with `gradience cache clean`: what is being written stays.",
)
DEAD_RUN = _add(
    Trouble.SPACE,
    "dead_run",
    _INFO,
    "A run that was killed left its reserve, or a save that it did not finish; the next run there "
    "gives it back. A warning above 1 GB.",
    "Run it again, or delete what it holds.",
)
UNFINISHED = _add(
    Trouble.SPACE,
    "unfinished_move",
    _WARNING,
    "A move or a merge of a cache was cut off: what came so far takes room twice.",
    "Give the same command again: it goes on. With --abandon, before the swap, it is given up.",
)
IDLE_LOCKS = _add(
    Trouble.SPACE,
    "idle_locks",
    _INFO,
    "Thousands of lock files that the hub never removes.",
    "Delete those that are older than a day and that nobody holds.",
)
UNWRITABLE = _add(
    Trouble.PERMISSION,
    "directory_unwritable",
    _ERROR,
    "A library must write where this user may not.",
    "Change the owner or the rights, or point the library elsewhere.",
)
FOREIGN_PARTS = _add(
    Trouble.PERMISSION,
    "foreign_owner",
    _ERROR,
    "Parts of a cache belong to another user (a run under sudo or as root in a container), and "
    "cannot be written.",
    "Give them back to the user of the cache.",
)
GROUP_BROKEN = _add(
    Trouble.PERMISSION,
    "group_sharing_broken",
    _WARNING,
    "A cache is shared with a group, but parts of it shut the group out or lack the setgid bit.",
    "Give the group its rights on all of it.",
)
UMASK = _add(
    Trouble.PERMISSION,
    "umask_shuts_group_out",
    _WARNING,
    "New files in a cache that a group shares will not be writable by the group.",
    "Set `umask 002` before the program starts.",
)
NO_EXEC = _add(
    Trouble.PERMISSION,
    "no_exec",
    _ERROR,
    "Compiled code lies on a mount that forbids execution: loading it fails.",
    "Point it to a directory on a mount without noexec.",
)
TOKEN_READABLE = _add(
    Trouble.OTHER,
    "token_readable",
    _WARNING,
    "The login token can be read by others.",
    "Make it private.",
)
TOKEN_SHARED = _add(
    Trouble.OTHER,
    "token_on_shared_volume",
    _WARNING,
    "The login token lies on a volume that other machines or users mount.",
    "Keep it in the home directory and name it with HF_TOKEN_PATH.",
)
LOGIN_LOST = _add(
    Trouble.VARIABLES,
    "login_lost",
    _WARNING,
    "HF_HOME moved the place of the login: the token that exists is not found any more.",
    "Name the token with HF_TOKEN_PATH.",
)
IN_PROFILE = _add(
    Trouble.VARIABLES,
    "variable_not_in_process",
    _WARNING,
    "Shell profiles set variables that this process does not have.",
    "Export them here, or start a new shell.",
)
LITERAL = _add(
    Trouble.VARIABLES,
    "variable_literal",
    _ERROR,
    "A value holds `~` or `$VAR` that a library does not expand: it makes a directory of that name "
    "below the working directory.",
    "Export the expanded value.",
)
EMPTY = _add(
    Trouble.VARIABLES,
    "variable_empty",
    _ERROR,
    "A variable is set to nothing, which is not the same as unset: paths become relative.",
    "Unset it.",
)
RELATIVE = _add(
    Trouble.VARIABLES,
    "variable_relative",
    _WARNING,
    "A relative value follows the working directory: each directory gets a cache of its own.",
    "Export an absolute value.",
)
UNREAD = _add(
    Trouble.VARIABLES,
    "variable_unread",
    _WARNING,
    "No installed library reads this variable.",
    "Unset it, and set the one that is read.",
)
OVERRIDDEN = _add(
    Trouble.VARIABLES,
    "variable_overridden",
    _INFO,
    "Two names of one setting differ; the older name loses.",
    "Unset the older name.",
)
ELSEWHERE = _add(
    Trouble.VARIABLES,
    "library_elsewhere",
    _ERROR,
    "A library uses another path than the variable says.",
    "Look for what sets it: sitecustomize, a .pth file, a wrapper.",
)
AFTER_IMPORT = _add(
    Trouble.VARIABLES,
    "variable_after_import",
    _ERROR,
    "A program sets variables after the import of a library that reads them at import.",
    "Set them in front of the command.",
)
PUTENV = _add(
    Trouble.VARIABLES,
    "variable_by_putenv",
    _ERROR,
    "os.putenv does not change os.environ: Python libraries do not see it.",
    "Set it in front of the command.",
)
XET_DISABLED = _add(
    Trouble.VARIABLES,
    "xet_disabled",
    _WARNING,
    "HF_HUB_DISABLE_XET: the hub refuses files above 50 GB over plain HTTP, and no longer stores "
    "equal files of two repositories once.",
    "Unset it.",
)
DUPLICATE = _add(
    Trouble.DUPLICATES,
    "same_repo_in_two_caches",
    _WARNING,
    "A repository lies in two caches and takes its space twice.",
    "Merge the two caches: one stays, the other becomes a link to it.",
)
SECOND_CACHE = _add(
    Trouble.DUPLICATES,
    "cache_left_behind",
    _INFO,
    "A cache of the hub, of datasets or of torch with content lies where no library looks any "
    "more: it will be downloaded, or built, again.",
    "Bring it to where the libraries look.",
)
CACHE_IN_PROGRAM = _add(
    Trouble.DUPLICATES,
    "cache_dir_in_program",
    _INFO,
    "A program names its own cache directory: what other programs have is downloaded again.",
    "Leave `cache_dir` out, and set HF_HOME.",
)
GENERATIONS = _add(
    Trouble.DUPLICATES,
    "hub_generations",
    _WARNING,
    "Clients below and above huggingface_hub 1.32 use one cache: the older ones do not know its "
    "shared blob store, and report space freed that is not.",
    "Upgrade the older one, or keep the blob store off for all.",
)
LOCKS = _add(
    Trouble.DUPLICATES,
    "locks_without_effect",
    _WARNING,
    "Two processes could lock one file at the same time: parallel downloads will corrupt or repeat "
    "each other.",
    "Keep the cache on a disk with locks, or download once before starting the workers.",
)
BROKEN_REPO = _add(
    Trouble.DAMAGE,
    "broken_repo",
    _WARNING,
    "Links or refs of a cached repository lead to nothing: `hf cache ls` hides all of it.",
    "Remove the broken links; the files are downloaded again when needed.",
)
BROKEN_WEIGHTS = _add(
    Trouble.DAMAGE,
    "broken_weights",
    _ERROR,
    "A weights file is shorter than its header says, or holds only zeros: what a full disk leaves.",
    "Delete it and download it again.",
)
BROKEN_CHECKPOINT = _add(
    Trouble.DAMAGE,
    "broken_checkpoint",
    _ERROR,
    "Resuming would choose a checkpoint that is not complete, and fail.",
    "Move it aside: the complete one before it is then chosen.",
)
UNREADABLE_PART = _add(
    Trouble.PERMISSION,
    "cache_unreadable",
    _WARNING,
    "Parts of a cache could not be read.",
    "Give this user the right to read them.",
)
LIBRARY_BROKEN = _add(
    Trouble.OTHER,
    "library_broken",
    _WARNING,
    "An installed library could not be imported, or did not answer in time.",
    "Install it again.",
)
LIBRARY_MISSING = _add(
    Trouble.OTHER,
    "library_missing",
    _WARNING,
    "A program imports libraries that its interpreter does not have.",
    "Name the interpreter of the program with --python.",
)
NO_PROGRAM = _add(
    Trouble.OTHER,
    "program_not_read",
    _WARNING,
    "The program could not be read, so only its environment was looked at.",
    "Give the path of the script.",
)
