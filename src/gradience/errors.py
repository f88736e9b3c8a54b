"""Every error raised on purpose, with its exit code and its remedy.

The class decides the exit code, the message says what was found and where, the remedy is a
command or an edit. The command line prints the two lines and no traceback.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum


def cut(text: str, most: int = 80) -> str:
    """A text as an error shows it: its beginning where it is longer than so many characters.

    Examples
    --------
    >>> cut("lora_alpha"), cut("lora_alpha", 7)
    ('lora_alpha', 'lora...')
    """
    return text if len(text) <= most else f"{text[: most - 3]}..."


def shown(value: object, most: int = 80) -> str:
    """A value from a file as an error shows it: quoted, escaped, and cut when it is long.

    Examples
    --------
    >>> shown("a\\n"), len(shown("x" * 10_000))
    ("'a\\\\n'", 80)
    """
    return cut(repr(value), most)


class ExitCode(IntEnum):
    """What a shell script can tell from `$?`."""

    OK = 0
    BAD_NEWS = 1
    USAGE = 2
    UNREADABLE = 3
    MISSING_EXTRA = 4
    STORAGE_REFUSED = 5
    TRIAL_FAILED = 6


class GradienceError(Exception):
    """Base of every error raised on purpose.

    Parameters
    ----------
    message : str
        What was found and where: names the file and the value.
    remedy : str
        What to do about it: a command or an edit.
    details : sequence of str
        Further lines, where one error reports several mistakes.
    """

    exit_code: ExitCode = ExitCode.BAD_NEWS
    code: str = "error"

    def __init__(self, message: str, *, remedy: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.details = tuple(details)
        for detail in self.details:
            self.add_note(f"  {detail}")
        self.add_note(f"hint: {remedy}")  # what a Python traceback shows below the message


class UsageError(GradienceError):
    """An option, an argument or a config that cannot be meant."""

    exit_code = ExitCode.USAGE
    code = "usage"


class UnknownNameError(UsageError):
    """A name that is in no registry."""

    code = "unknown_name"


class UnreadableError(GradienceError):
    """A file that is there and cannot be read as what it should be."""

    exit_code = ExitCode.UNREADABLE
    code = "unreadable"


class TensorFileError(UnreadableError):
    """A weights file that is damaged, hostile, or not a weights file."""

    code = "bad_tensor_file"


class LfsPointerError(TensorFileError):
    """A Git LFS pointer stands where the weights should be."""

    code = "lfs_pointer"


class UnsafePickleError(TensorFileError):
    """A pickle that wants more than tensors: refused, never executed."""

    code = "unsafe_pickle"


class TransferError(TensorFileError):
    """Bytes of a remote file that cannot be had, or are not those that were promised."""

    code = "transfer_failed"


class RefusedError(TransferError):
    """A remote file that may not be read, or is not there."""

    code = "transfer_refused"


class AdapterNotFoundError(UnreadableError):
    """There is no adapter where one was named."""

    code = "adapter_not_found"


class AdapterError(UnreadableError):
    """An adapter whose files contradict one another."""

    code = "bad_adapter"


class AdapterConfigError(AdapterError):
    """An adapter_config.json that cannot be understood."""

    code = "bad_adapter_config"


class UnsupportedAdapterError(AdapterError):
    """An adapter type whose weight change its file alone does not define."""

    code = "unsupported_adapter"


class BaseModelError(UnreadableError):
    """The base model is missing, incomplete, or not the base of this adapter."""

    code = "bad_base_model"


class ArtifactError(UnreadableError):
    """An artifact of Gradience's own that cannot be read."""

    code = "bad_artifact"


class TrialResultError(UnreadableError):
    """Results of trials that cannot be compared with one another."""

    code = "bad_trial_result"


class UnmeasurableError(GradienceError):
    """A value that is not defined for this input; the caller records the reason."""

    code = "unmeasurable"


class MissingExtraError(GradienceError):
    """An optional dependency is needed and not installed."""

    exit_code = ExitCode.MISSING_EXTRA
    code = "missing_extra"


@contextmanager
def of_an_extra(message: str, *, remedy: str) -> Iterator[None]:
    """Import what an extra brings inside of this.

    Raises
    ------
    MissingExtraError
        If it cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(message, remedy=remedy) from error


class StorageError(GradienceError):
    """The disk refused: full, over quota, or not writable."""

    exit_code = ExitCode.STORAGE_REFUSED
    code = "storage_refused"


class TrialError(GradienceError):
    """A trial of a bench that cannot be done, or whose numbers cannot be right."""

    exit_code = ExitCode.TRIAL_FAILED
    code = "trial_failed"


class DownloadRefusedError(StorageError):
    """More would be downloaded than was allowed, or nobody allowed it."""

    code = "download_refused"
