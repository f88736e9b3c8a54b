"""The index of a sharded model names its shards: are they in the snapshot beside it?"""

import os

import msgspec

from gradience.storage.inventory.caches.kind import read_text
from gradience.storage.verify.expected import Item

_INDEX = (".safetensors.index.json", ".bin.index.json")
_INDEX_LIMIT = 64 << 20


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def missing_shards(item: Item) -> tuple[str, str] | None:
    """Shards that an index names and that no snapshot with this index holds.

    An index without a single shard was downloaded by itself, to be read: no damage.
    """
    if not any(name.endswith(_INDEX) for name in item.names):
        return None
    try:
        index = msgspec.json.decode(read_text(item.path, _INDEX_LIMIT) or "", type=_Index)
    except (msgspec.DecodeError, RecursionError):
        return None
    for directory in item.beside:
        shards = sorted(set(index.weight_map.values()))
        missing = [s for s in shards if not os.path.exists(f"{directory}/{s}")]  # noqa: PTH110
        if missing and len(missing) < len(shards):
            named = ", ".join(missing[:3]) + ("..." if len(missing) > 3 else "")
            return "missing_shard", f"{len(missing)} of {len(shards)} shards are not there: {named}"
    return None
