"""torch.compile's cache: generated code and graphs; no size limit, /tmp by default.

Code is `<2>/<hash>.*`, the second and third letter of the hash naming the directory; the others
have names of their own. Read from the source of torch 2.13: _inductor/codecache.py, cpp_builder.py,
compiler_bisector.py, runtime/, aoti_eager.py, autoheuristic/; _functorch/_aot_autograd; _dynamo.
"""

import re

from gradience.storage.inventory.caches.plain import children
from gradience.storage.inventory.scan import Directory

_NAMED = re.compile(
    "fxgraph|aotautograd|triton|locks|cache|gcc|dynamo|aoti_eager|autoheuristic|bisect"
    "|precompiled_headers|unhashed_kernel_inputs|torch_cutlass|cutedsl_compile_cache"
)
_CODE = re.compile("[a-z2-7]{2}")


def _owns(child: Directory) -> bool:
    if _NAMED.fullmatch(child.name):
        return True
    if not _CODE.fullmatch(child.name) or (child.dirs and not child.files):
        return False
    return all(file.name[1:3] == child.name for file in child.files)


INDUCTOR = children(
    title="torch.compile (inductor)",
    holds="Code and graphs that torch.compile made; nothing ever removes them.",
    what="compiled",
    recoverable="rebuild",
    how="Compiled again, which takes minutes for a large model.",
    variable="inductor",
    owns=_owns,
    keep=lambda relative: _CODE.fullmatch(relative) is not None,
)
