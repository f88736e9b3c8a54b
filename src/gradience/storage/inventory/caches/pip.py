"""pip's cache of downloads and of wheels it built: `<use>/<a>/<b>/...` by the letters of a hash.

Read from the source of pip 26: _internal/cache.py, network/cache.py, self_outdated_check.py.
"""

from gradience.storage.inventory.caches.plain import children, named

_HASHED = named("http|http-v2|wheels", inside="[0-9a-f]{1,2}")
_CHECKED = named("selfcheck")

PIP = children(
    title="pip",
    holds="Downloads and wheels that pip keeps.",
    what="packages",
    recoverable="download",
    how="Downloaded or built again by pip; `pip cache purge` empties it.",
    variable="pip",
    owns=lambda child: _HASHED(child) or (_CHECKED(child) and not child.dirs),
)
