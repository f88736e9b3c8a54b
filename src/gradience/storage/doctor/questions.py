"""What each library is asked in its own process, and which variables should decide the answer.

The code of a question runs in the user's interpreter, which may be older than ours, and must only
look: `torch._inductor` for one creates its directory when asked through its public function.
Adding a library is one entry of `QUESTIONS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

Variables = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """How to ask one library.

    Attributes
    ----------
    distribution : str
        Its name in the package index; decides whether it is installed.
    code : str
        Python that puts `purpose: path` into the dictionary `say`; may raise anything.
    variables : mapping of str to variables
        For each purpose, the variables that decide, strongest first, with what is appended.
    asked : bool
        False where the library cannot be asked and `code` follows its documented rule.
    alone : bool
        No other library loads it by itself: a program that neither imports nor needs it is not kept
        waiting for its import of many seconds.
    """

    distribution: str
    code: str
    variables: Mapping[str, Variables]
    asked: bool = True
    alone: bool = False


MODELS = "models and files"
LOGIN = "login"
ARROW = "datasets as Arrow"
CODE = "remote code"
COMPILED = "compiled kernels"
EXTENSIONS = "C++ and CUDA extensions"
TEMPORARY = "temporary files"
TORCH_HUB = "torch.hub models"
XET = "chunks in transit"

_HUB: Variables = (
    ("HF_HUB_CACHE", ""),
    ("HUGGINGFACE_HUB_CACHE", ""),
    ("HF_HOME", "hub"),
    ("XDG_CACHE_HOME", "huggingface/hub"),
)


def _below_home(name: str, folder: str) -> Variables:
    return ((name, ""), ("HF_HOME", folder), ("XDG_CACHE_HOME", f"huggingface/{folder}"))


_CODE = _below_home("HF_MODULES_CACHE", "modules")
_DATASETS = _below_home("HF_DATASETS_CACHE", "datasets")

QUESTIONS: Mapping[str, Question] = {
    "huggingface_hub": Question(
        distribution="huggingface_hub",
        code=f"""
from huggingface_hub import constants as c
# An empty value is one: the hub then writes below the working directory.
say[{MODELS!r}] = c.HF_HUB_CACHE if hasattr(c, "HF_HUB_CACHE") else c.HUGGINGFACE_HUB_CACHE
say[{LOGIN!r}] = c.HF_TOKEN_PATH
new = hasattr(c, "HF_ASSETS_CACHE")
say["assets"] = c.HF_ASSETS_CACHE if new else c.HUGGINGFACE_ASSETS_CACHE
""",
        variables={
            MODELS: _HUB,
            LOGIN: _below_home("HF_TOKEN_PATH", "token"),
            "assets": (
                ("HF_ASSETS_CACHE", ""),
                ("HUGGINGFACE_ASSETS_CACHE", ""),
                ("HF_HOME", "assets"),
                ("XDG_CACHE_HOME", "huggingface/assets"),
            ),
        },
    ),
    # The Rust half reads the environment itself, when a session begins: `~` yes, `$VAR` no.
    "hf_xet": Question(
        distribution="hf_xet",
        code=f"""
e = os.environ
base = os.path.join(e.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
home = os.path.join(e.get("HF_HOME", base), "xet")
say[{XET!r}] = os.path.expanduser(e.get("HF_XET_CACHE", home))
""",
        variables={XET: _below_home("HF_XET_CACHE", "xet")},
        asked=False,
    ),
    "datasets": Question(
        distribution="datasets",
        code=f"""
from datasets import config as c
say[{ARROW!r}] = c.HF_DATASETS_CACHE
say["downloads from other sites"] = c.DOWNLOADED_DATASETS_PATH
say["extracted archives"] = c.EXTRACTED_DATASETS_PATH
say[{CODE!r}] = c.HF_MODULES_CACHE
""",
        variables={
            ARROW: _DATASETS,
            "downloads from other sites": (
                ("HF_DATASETS_DOWNLOADED_DATASETS_PATH", ""),
                *((name, f"{rest}/downloads".lstrip("/")) for name, rest in _DATASETS),
            ),
            "extracted archives": (
                ("HF_DATASETS_EXTRACTED_DATASETS_PATH", ""),
                *((name, f"{rest}/downloads/extracted".lstrip("/")) for name, rest in _DATASETS),
            ),
            CODE: _CODE,
        },
    ),
    "transformers": Question(
        distribution="transformers",
        code=f"""
from transformers.utils import hub
from huggingface_hub import constants as c
old = hasattr(hub, "TRANSFORMERS_CACHE")
say[{MODELS!r}] = hub.TRANSFORMERS_CACHE if old else c.HF_HUB_CACHE
say[{CODE!r}] = hub.HF_MODULES_CACHE
""",
        variables={MODELS: (("TRANSFORMERS_CACHE", ""), *_HUB), CODE: _CODE},
    ),
    "diffusers": Question(
        distribution="diffusers",
        code=f"""
from diffusers.utils import constants as c
from huggingface_hub import constants as hub
say[{MODELS!r}] = hub.HF_HUB_CACHE
say[{CODE!r}] = c.HF_MODULES_CACHE
""",
        variables={MODELS: _HUB, CODE: _CODE},
        alone=True,
    ),
    # PEFT 0.21 has no place of its own: to import it would take longest of all, and tell the same.
    "peft": Question(
        distribution="peft",
        code=f"""
from huggingface_hub import constants as c
say[{MODELS!r}] = c.HF_HUB_CACHE
""",
        variables={MODELS: _HUB},
        asked=False,
    ),
    "sentence_transformers": Question(
        distribution="sentence-transformers",
        code=f"""
from huggingface_hub import constants as c
say[{MODELS!r}] = os.environ.get("SENTENCE_TRANSFORMERS_HOME") or c.HF_HUB_CACHE
""",
        variables={MODELS: (("SENTENCE_TRANSFORMERS_HOME", ""), *_HUB)},
        asked=False,
    ),
    "evaluate": Question(
        distribution="evaluate",
        code=f"""
from evaluate import config as c
say["evaluation modules"] = c.HF_EVALUATE_CACHE
say["metrics"] = c.HF_METRICS_CACHE
say[{CODE!r}] = c.HF_MODULES_CACHE
""",
        variables={
            "evaluation modules": _below_home("HF_EVALUATE_CACHE", "evaluate"),
            "metrics": _below_home("HF_METRICS_CACHE", "metrics"),
            CODE: _CODE,
        },
        alone=True,
    ),
    "accelerate": Question(
        distribution="accelerate",
        code="""
from accelerate.commands.config import config_args as c
say["configuration"] = c.cache_dir
""",
        variables={
            "configuration": (
                ("HF_HOME", "accelerate"),
                ("XDG_CACHE_HOME", "huggingface/accelerate"),
            )
        },
    ),
    # inductor's public `cache_dir()` creates the directory and sets the variable: not ours to do.
    "torch": Question(
        distribution="torch",
        code=f"""
import torch.hub
say[{TORCH_HUB!r}] = torch.hub.get_dir()
from torch.utils import cpp_extension
built = os.environ.get("TORCH_EXTENSIONS_DIR")
say[{EXTENSIONS!r}] = cpp_extension.get_default_build_root() if built is None else built
compiled = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
if compiled is None:
    try:
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir
    except ImportError:
        from torch._inductor.codecache import default_cache_dir
    compiled = default_cache_dir()
say[{COMPILED!r}] = compiled
""",
        variables={
            TORCH_HUB: (("TORCH_HOME", "hub"), ("XDG_CACHE_HOME", "torch/hub")),
            EXTENSIONS: (("TORCH_EXTENSIONS_DIR", ""),),
            COMPILED: (("TORCHINDUCTOR_CACHE_DIR", ""),),
        },
    ),
    "triton": Question(
        distribution="triton",
        code=f"""
try:
    from triton import knobs
    say[{COMPILED!r}] = knobs.cache.dir
except ImportError:
    from triton.runtime import cache
    say[{COMPILED!r}] = os.environ.get("TRITON_CACHE_DIR") or cache.default_cache_dir()
""",
        variables={COMPILED: (("TRITON_CACHE_DIR", ""), ("TRITON_HOME", ".triton/cache"))},
    ),
    "wandb": Question(
        distribution="wandb",
        code="""
from wandb import env
say["artifacts, cached"] = env.get_cache_dir()
say["artifacts, staged"] = env.get_data_dir()
say["artifacts, fetched"] = env.get_artifact_dir()
say["runs"] = os.path.join(env.get_dir(".") or ".", "wandb")
""",
        variables={
            "artifacts, cached": (("WANDB_CACHE_DIR", ""), ("XDG_CACHE_HOME", "wandb")),
            "artifacts, staged": (("WANDB_DATA_DIR", ""), ("XDG_DATA_HOME", "wandb")),
            "artifacts, fetched": (("WANDB_ARTIFACT_DIR", ""),),
            "runs": (("WANDB_DIR", "wandb"),),
        },
    ),
    "vllm": Question(
        distribution="vllm",
        code="""
from vllm import envs
say["compiled graphs"] = envs.VLLM_CACHE_ROOT
""",
        variables={
            "compiled graphs": (("VLLM_CACHE_ROOT", ""), ("XDG_CACHE_HOME", "vllm")),
        },
    ),
    "python": Question(
        distribution="",
        code=f"""
import tempfile
say[{TEMPORARY!r}] = tempfile.gettempdir()
""",
        variables={TEMPORARY: (("TMPDIR", ""), ("TEMP", ""), ("TMP", ""))},
    ),
}
