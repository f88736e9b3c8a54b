"""C++ and CUDA extensions that torch compiled: `<root>/py311_cu126/<extension>`.

With TORCH_EXTENSIONS_DIR there is no directory per Python: an extension is told by its
`build.ninja` (torch/utils/cpp_extension.py).
"""

import re

from gradience.storage.inventory.caches.plain import children
from gradience.storage.inventory.scan import Directory

_BUILD = re.compile(r"py\d+[a-z]*_(cpu|cu\d+|rocm\d+|xpu\w*)")


def _owns(child: Directory) -> bool:
    if _BUILD.fullmatch(child.name):
        return not child.file_count
    return any(file.name == "build.ninja" for file in child.files)


TORCH_EXTENSIONS = children(
    title="torch extensions",
    holds="C++ and CUDA extensions that torch compiled on this machine.",
    what="extensions",
    recoverable="rebuild",
    how="Compiled again on import, which needs the compiler.",
    variable="torch_extensions",
    owns=_owns,
    keep=lambda relative: bool(relative) and "/" not in relative,
)
