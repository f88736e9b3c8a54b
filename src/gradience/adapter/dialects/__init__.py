"""One module per key dialect; the registry lists them.

A new file format is one module with a `Dialect` and one line here: it is then read, listed in the
help and the reference, and held to the contract that every file is of exactly one dialect.
"""

from gradience.adapter.dialects.dialect import Dialect
from gradience.registry import Registry

DIALECTS: Registry[Dialect] = Registry(
    "dialect",
    {
        "peft": "gradience.adapter.dialects.peft:DIALECT",
        "kohya": "gradience.adapter.dialects.kohya:DIALECT",
        "diffusers": "gradience.adapter.dialects.diffusers:DIALECT",
    },
)
"""Every file format that is read, by name."""
