"""What a pickle would import, told without loading it.

Only the opcodes are walked. It serves the error message: what may be loaded is decided by torch's
restricted unpickler, never by this list.
"""

import io
import pickletools
import warnings
from collections.abc import Iterator

_MAX_OPCODES = 1_000_000
_MAX_PICKLES = 4  # magic number, protocol, byte order, state dict
# What `torch.save` itself writes for a state dict.
_PLAIN = ("torch.", "torch._utils.", "collections.OrderedDict", "_codecs.encode")


def foreign_globals(data: bytes) -> tuple[str, ...]:
    """Names that a pickle imports and a state dict does not need, in order, each once.

    Parameters
    ----------
    data : bytes
        One pickle, or the four at the beginning of a checkpoint of the old format. A damaged one
        is read as far as it goes.

    Examples
    --------
    >>> foreign_globals(b"cposix\\nsystem\\n.")
    ('posix.system',)
    """
    with warnings.catch_warnings():
        # pickletools decodes escapes in names, and Python warns of those it does not know.
        warnings.simplefilter("ignore")
        found = dict.fromkeys(_globals(data))
    return tuple(name for name in found if not name.startswith(_PLAIN))


def _globals(data: bytes) -> Iterator[str]:
    stream = io.BytesIO(data)
    try:
        for _ in range(_MAX_PICKLES):
            yield from _globals_of_one(stream)
    except (ValueError, IndexError, OverflowError):
        return


def _globals_of_one(stream: io.BytesIO) -> Iterator[str]:
    strings: list[str] = []
    for (opcode, argument, _), _ in zip(
        pickletools.genops(stream), range(_MAX_OPCODES), strict=False
    ):
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".", 1)
        elif opcode.name == "STACK_GLOBAL" and len(strings) > 1:
            yield f"{strings[-2]}.{strings[-1]}"
        elif isinstance(argument, str):
            strings = [*strings[-1:], argument]
