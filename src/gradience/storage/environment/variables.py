"""The one table of environment variables that decide where bytes go, and who reads them when.

Read from the sources of huggingface_hub 2.4, hf_xet 1.8, transformers 5.23, datasets 5.2, evaluate
0.4.6, accelerate 1.15, diffusers 0.42, torch 2.13, triton 3.9 and wandb 0.31. `readers.py` holds
the rules; this table says them in words.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

When = Literal["import", "call", "session", "first use", "nobody"]
Expansion = Literal["yes", "no", "by reader"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One environment variable.

    Attributes
    ----------
    purpose : str
        What lies there.
    readers : tuple of str
        Libraries; empty where nobody reads it any more.
    read : str
        `import`: frozen when the library is imported. `call`: each time. `session`: when Xet
        connects. `first use`: once per process.
    default : str
        The rule when it is unset.
    place : str
        Key of `resolve()`; empty for a switch, or where no rule is kept.
    home, variables : str
        Whether the reader expands `~` and `$VAR`.
    since, until : str
        The version that began, and the one that stopped, to read it; empty for long ago, and for
        not yet.
    """

    name: str
    purpose: str
    readers: tuple[str, ...]
    read: When
    default: str
    place: str = ""
    home: Expansion = "no"
    variables: Expansion = "no"
    since: str = ""
    until: str = ""
    note: str = ""


_HUB = ("huggingface_hub",)

_TABLE = (
    Variable(
        name="HF_HOME",
        purpose="Root of all Hugging Face caches, and of the login token",
        readers=("huggingface_hub", "hf_xet", "datasets", "evaluate", "accelerate"),
        read="import",
        default="$XDG_CACHE_HOME/huggingface, else ~/.cache/huggingface",
        place="hf_home",
        home="yes",
        variables="by reader",
        note="Only the hub expands $VAR; the others make a directory of that literal name.",
    ),
    Variable(
        name="HF_HUB_CACHE",
        purpose="Models, and the raw files of datasets",
        readers=_HUB,
        read="import",
        default="$HF_HOME/hub",
        place="hub",
        home="yes",
        variables="yes",
    ),
    Variable(
        name="HUGGINGFACE_HUB_CACHE",
        purpose="Old name of HF_HUB_CACHE",
        readers=_HUB,
        read="import",
        default="$HF_HOME/hub",
        place="hub",
        home="yes",
        variables="yes",
        note="Still honoured where HF_HUB_CACHE is not set.",
    ),
    Variable(
        name="HF_XET_CACHE",
        purpose="Xet's shards, staging and logs",
        readers=("hf_xet",),
        read="session",
        default="$HF_HOME/xet",
        place="xet",
        home="yes",
        note="huggingface_hub has a constant of that name, which moves no bytes.",
    ),
    Variable(
        name="HF_ASSETS_CACHE",
        purpose="Files that libraries derive from a repository",
        readers=_HUB,
        read="import",
        default="$HF_HOME/assets",
        place="assets",
        home="yes",
        variables="yes",
    ),
    Variable(
        name="HUGGINGFACE_ASSETS_CACHE",
        purpose="Old name of HF_ASSETS_CACHE",
        readers=_HUB,
        read="import",
        default="$HF_HOME/assets",
        place="assets",
        home="yes",
        variables="yes",
        note="Still honoured where HF_ASSETS_CACHE is not set.",
    ),
    Variable(
        name="HF_TOKEN_PATH",
        purpose="The login token; the other stored tokens lie beside it",
        readers=_HUB,
        read="import",
        default="$HF_HOME/token",
        place="hub_token",
        home="yes",
        variables="yes",
        note="Kept private when HF_HOME lies on a shared volume.",
    ),
    Variable(
        name="HF_DATASETS_CACHE",
        purpose="Arrow builds and results of map(), not the downloads from the Hub",
        readers=("datasets",),
        read="import",
        default="$HF_HOME/datasets",
        place="datasets",
    ),
    Variable(
        name="HF_DATASETS_DOWNLOADED_DATASETS_PATH",
        purpose="Downloads of datasets from other places than the Hub",
        readers=("datasets",),
        read="import",
        default="$HF_DATASETS_CACHE/downloads",
        place="datasets_downloads",
    ),
    Variable(
        name="HF_DATASETS_EXTRACTED_DATASETS_PATH",
        purpose="Unpacked archives of datasets",
        readers=("datasets",),
        read="import",
        default="$HF_DATASETS_CACHE/downloads/extracted",
        place="datasets_extracted",
        note="Does not follow HF_DATASETS_DOWNLOADED_DATASETS_PATH.",
    ),
    Variable(
        name="HF_MODULES_CACHE",
        purpose="Code of repositories with trust_remote_code",
        readers=("transformers", "diffusers", "datasets", "evaluate"),
        read="import",
        default="$HF_HOME/modules",
        place="modules",
    ),
    Variable(
        name="HF_EVALUATE_CACHE",
        purpose="Metrics' data",
        readers=("evaluate",),
        read="import",
        default="$HF_HOME/evaluate",
        place="evaluate",
    ),
    Variable(
        name="HF_METRICS_CACHE",
        purpose="Metrics' scripts",
        readers=("evaluate",),
        read="import",
        default="$HF_HOME/metrics",
        place="metrics",
    ),
    Variable(
        name="TRANSFORMERS_CACHE",
        purpose="Old place of models",
        readers=(),
        read="nobody",
        default="-",
        until="transformers 5.0",
        note="Set HF_HOME or HF_HUB_CACHE in its place.",
    ),
    Variable(
        name="PYTORCH_TRANSFORMERS_CACHE",
        purpose="Old place of models",
        readers=(),
        read="nobody",
        default="-",
        until="transformers 5.0",
    ),
    Variable(
        name="PYTORCH_PRETRAINED_BERT_CACHE",
        purpose="Old place of models",
        readers=(),
        read="nobody",
        default="-",
        until="transformers 5.0",
    ),
    Variable(
        name="HF_HUB_DISABLE_XET",
        purpose="1: download over plain HTTP",
        readers=_HUB,
        read="import",
        default="off",
        note="Then files over 50 GB are refused, and the shared blob store is off.",
    ),
    Variable(
        name="HF_HUB_ENABLE_HF_TRANSFER",
        purpose="1: download with hf_transfer",
        readers=(),
        read="nobody",
        default="off",
        until="huggingface_hub 1.0",
        note="HF_XET_HIGH_PERFORMANCE has taken its place.",
    ),
    Variable(
        name="HF_XET_HIGH_PERFORMANCE",
        purpose="1: Xet uses all cores and more memory",
        readers=("hf_xet", "huggingface_hub"),
        read="session",
        default="off",
    ),
    Variable(
        name="HF_HUB_DISABLE_SYMLINKS",
        purpose="1: copies in the place of links, so nothing is stored once",
        readers=_HUB,
        read="import",
        default="off",
        since="huggingface_hub 1.9",
    ),
    Variable(
        name="HF_HUB_DISABLE_SHARED_BLOBS",
        purpose="1: a file that two repositories share is stored twice",
        readers=_HUB,
        read="import",
        default="off",
        since="huggingface_hub 1.32",
    ),
    Variable(
        name="TORCH_HOME",
        purpose="torch.hub: repositories and checkpoints",
        readers=("torch",),
        read="call",
        default="$XDG_CACHE_HOME/torch, else ~/.cache/torch",
        place="torch",
        home="yes",
    ),
    Variable(
        name="TORCH_EXTENSIONS_DIR",
        purpose="C++ and CUDA extensions built on the fly",
        readers=("torch",),
        read="call",
        default="~/.cache/torch_extensions/py<version>_<accelerator>",
        place="torch_extensions",
    ),
    Variable(
        name="TORCHINDUCTOR_CACHE_DIR",
        purpose="Code that torch.compile made",
        readers=("torch",),
        read="call",
        default="<temporary directory>/torchinductor_<user>",
        place="inductor",
        note="/tmp is often in memory, and nothing limits the size.",
    ),
    Variable(
        name="TRITON_CACHE_DIR",
        purpose="Compiled kernels, which are loaded as code",
        readers=("triton", "torch"),
        read="call",
        default="$TRITON_HOME/.triton/cache; below inductor's when it compiles",
        place="triton",
        note="A noexec mount breaks it.",
    ),
    Variable(
        name="TRITON_HOME",
        purpose="Root of Triton's .triton directory",
        readers=("triton",),
        read="import",
        default="~",
        place="triton",
    ),
    Variable(
        name="TMPDIR",
        purpose="Temporary files",
        readers=("tempfile", "datasets"),
        read="first use",
        default="/tmp",
        place="tmp",
        note="Python falls back to /tmp without a word where the directory is missing.",
    ),
    Variable(
        name="XDG_CACHE_HOME",
        purpose="Root of all caches that have no variable of their own",
        readers=("huggingface_hub", "hf_xet", "datasets", "torch", "wandb", "pip", "uv"),
        read="import",
        default="~/.cache",
        home="by reader",
        variables="by reader",
    ),
    Variable(
        name="WANDB_DIR",
        purpose="Run directories of W&B, in a directory wandb below it",
        readers=("wandb",),
        read="call",
        default=".",
        place="wandb_runs",
        home="yes",
    ),
    Variable(
        name="WANDB_CACHE_DIR",
        purpose="Downloaded artifacts of W&B",
        readers=("wandb",),
        read="call",
        default="~/.cache/wandb",
        place="wandb_cache",
    ),
    Variable(
        name="WANDB_DATA_DIR",
        purpose="Artifacts of W&B on their way up",
        readers=("wandb",),
        read="call",
        default="~/.local/share/wandb",
        place="wandb_data",
        home="yes",
    ),
    Variable(
        name="WANDB_ARTIFACT_DIR",
        purpose="Artifacts of W&B that a run asked for",
        readers=("wandb",),
        read="call",
        default="./artifacts",
        place="wandb_artifacts",
    ),
    Variable(
        name="PIP_CACHE_DIR",
        purpose="Downloaded and built wheels",
        readers=("pip",),
        read="call",
        default="$XDG_CACHE_HOME/pip, else ~/.cache/pip",
        place="pip",
        home="yes",
    ),
    Variable(
        name="UV_CACHE_DIR",
        purpose="Downloaded and built wheels",
        readers=("uv",),
        read="call",
        default="$XDG_CACHE_HOME/uv, else ~/.cache/uv",
        place="uv",
    ),
    Variable(
        name="GRADIENCE_CACHE_DIR",
        purpose="Gradience's own files",
        readers=("gradience",),
        read="call",
        default="~/.cache/gradience",
        place="gradience",
        home="yes",
        variables="yes",
        note="Refused unless absolute.",
    ),
)

VARIABLES: Mapping[str, Variable] = {variable.name: variable for variable in _TABLE}
"""By name, in the order of `gradience env --explain`."""
