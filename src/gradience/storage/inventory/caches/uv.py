"""uv's cache: a bucket `<use>-v<number>` per use.

Environments on the same disk are hard links into it: what they use is not freed.

Buckets of uv 0.13 and of the versions before it (crates/uv-cache/src/lib.rs).
"""

from gradience.storage.inventory.caches.plain import children, named

UV = children(
    title="uv",
    holds="Packages that uv keeps; environments on the same disk are hard links into it.",
    what="packages",
    recoverable="download",
    how="Downloaded again by uv; `uv cache prune` removes what no environment needs.",
    variable="uv",
    owns=named(
        "(archive|binaries|built-wheels|builds|environments|flat-index|git|interpreter|osv|python"
        r"|sdists|simple|wheels)-v\d+"
    ),
)
