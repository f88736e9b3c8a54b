"""One module per cache kind, one line each here; nothing else needs to know of a new one.

The name is the `kind` of the inventory's JSON, what `--kind` takes, and the heading of a page.
"""

from gradience.registry import Registry
from gradience.storage.inventory.caches.kind import CacheKind

_HERE = "gradience.storage.inventory.caches"

CACHES: Registry[CacheKind] = Registry(
    "cache kind",
    {
        "hub": f"{_HERE}.hub:HUB",
        "datasets": f"{_HERE}.datasets:DATASETS",
        "dataset_downloads": f"{_HERE}.dataset_downloads:DATASET_DOWNLOADS",
        "dataset_extracted": f"{_HERE}.dataset_extracted:DATASET_EXTRACTED",
        "xet": f"{_HERE}.xet:XET",
        "assets": f"{_HERE}.assets:ASSETS",
        "modules": f"{_HERE}.modules:MODULES",
        "hf_home": f"{_HERE}.hf_home:HF_HOME",
        "torch": f"{_HERE}.torch:TORCH",
        "torch_extensions": f"{_HERE}.torch_extensions:TORCH_EXTENSIONS",
        "inductor": f"{_HERE}.inductor:INDUCTOR",
        "triton": f"{_HERE}.triton:TRITON",
        "wandb": f"{_HERE}.wandb:WANDB",
        "wandb_staging": f"{_HERE}.wandb_staging:WANDB_STAGING",
        "wandb_runs": f"{_HERE}.wandb_runs:WANDB_RUNS",
        "gradience": f"{_HERE}.gradience:GRADIENCE",
        "pip": f"{_HERE}.pip:PIP",
        "uv": f"{_HERE}.uv:UV",
        "conda": f"{_HERE}.conda:CONDA",
        "project": f"{_HERE}.project:PROJECT",
    },
)
