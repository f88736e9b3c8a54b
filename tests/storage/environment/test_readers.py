"""The predicted place of every library's bytes is the place that library names itself."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gradience.errors import UsageError
from gradience.paths import cache_dir
from gradience.storage.environment.readers import Host, resolve
from gradience.storage.environment.variables import VARIABLES

HF = ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_MODULES_CACHE", "HF_TOKEN_PATH")
EACH = (
    *HF,
    "HUGGINGFACE_HUB_CACHE",
    "HF_ASSETS_CACHE",
    "HUGGINGFACE_ASSETS_CACHE",
    "HF_XET_CACHE",
    "HF_EVALUATE_CACHE",
    "HF_METRICS_CACHE",
    "HF_DATASETS_DOWNLOADED_DATASETS_PATH",
    "HF_DATASETS_EXTRACTED_DATASETS_PATH",
    "TORCH_HOME",
    "TORCH_EXTENSIONS_DIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "XDG_CACHE_HOME",
    "TRANSFORMERS_CACHE",
    "WANDB_CACHE_DIR",
    "WANDB_DATA_DIR",
    "WANDB_ARTIFACT_DIR",
    "XDG_DATA_HOME",
)
VALUES = ("{w}/abs", "~/t", "~", "$ZZ/v", "${{ZZ}}/v", "$NOT_SET/v", "", "rel/ative", "$ZZ", "~x/y")
GRID: list[dict[str, str]] = [
    {},
    *({name: value} for name in EACH for value in VALUES),
    {"HF_HOME": "$ZZ/h", "HF_HUB_CACHE": "~/hub", "HF_XET_CACHE": "$ZZ/x"},
    {"HF_HUB_CACHE": "{w}/new", "HUGGINGFACE_HUB_CACHE": "{w}/old"},
    {"HF_HUB_CACHE": "", "HUGGINGFACE_HUB_CACHE": "{w}/old"},
    {"XDG_CACHE_HOME": "", "HF_HOME": ""},
    {"XDG_CACHE_HOME": "$ZZ/c", "TORCH_HOME": "~/torch"},
    {"HF_DATASETS_CACHE": "~/d", "HF_DATASETS_DOWNLOADED_DATASETS_PATH": "{w}/dl"},
    {"TORCHINDUCTOR_CACHE_DIR": "i", "TRITON_CACHE_DIR": "~/t"},
    {"ZZ": "$HF_TWICE", "HF_TWICE": "{w}/twice", "HF_HOME": "$ZZ/a"},
]

# One process asks the real sources about every environment: modules whose constants are frozen at
# import are executed again, functions that read at each call are called.
ASK = """
import importlib, importlib.util, json, os, sys
import huggingface_hub.constants as hub
import torch.hub, torch.utils.cpp_extension as extensions
from torch._inductor.runtime import cache_dir_utils as inductor
import transformers.utils.hub as transformers_hub
import accelerate.commands.config.config_args as accelerate
optional = {n: importlib.import_module(n) for n in ("datasets.config", "evaluate.config")
            if importlib.util.find_spec(n.split(".")[0])}
wandb = importlib.import_module("wandb.env") if importlib.util.find_spec("wandb") else None
def ask():
    importlib.reload(hub)
    importlib.reload(transformers_hub)
    importlib.reload(accelerate)
    found = {
        "hf_home": hub.HF_HOME, "hub": hub.HF_HUB_CACHE, "assets": hub.HF_ASSETS_CACHE,
        "hub_token": hub.HF_TOKEN_PATH, "hub_stored_tokens": hub.HF_STORED_TOKENS_PATH,
        "xet_constant": hub.HF_XET_CACHE, "modules": transformers_hub.HF_MODULES_CACHE,
        "accelerate": accelerate.cache_dir, "torch_hub": torch.hub.get_dir(),
        "torch_extensions": os.path.dirname(extensions._get_build_directory("x", False)),
        "inductor": inductor.cache_dir(),
        "triton_inductor": os.path.dirname(inductor.triton_cache_dir(0))
        if "TRITON_CACHE_DIR" not in os.environ else inductor.triton_cache_dir(0),
    }
    if wandb:
        found["wandb_cache"] = str(wandb.get_cache_dir())
        found["wandb_data"] = wandb.get_data_dir()
        found["wandb_artifacts"] = wandb.get_artifact_dir()
    for name, module in optional.items():
        module = importlib.reload(module)
        for place, constant in (
            ("datasets", "HF_DATASETS_CACHE"), ("datasets_downloads", "DOWNLOADED_DATASETS_PATH"),
            ("datasets_extracted", "EXTRACTED_DATASETS_PATH"), ("evaluate", "HF_EVALUATE_CACHE"),
            ("metrics", "HF_METRICS_CACHE"), ("datasets_modules", "HF_MODULES_CACHE"),
        ):
            if hasattr(module, constant):
                found[place] = str(getattr(module, constant))
    return found
plain = dict(os.environ)
answers = []
for changes in json.loads(sys.argv[1]):
    os.environ.clear()
    os.environ.update({**plain, **changes})
    answers.append(ask())
print(json.dumps(answers))
"""

# A directory is made when an upload is begun: that is where Rust puts its bytes.
ASK_XET = """
import json, os, sys, hf_xet
plain = dict(os.environ)
answers = []
def directories():
    return {d for d, _, _ in os.walk(os.environ["WORK"])}
for changes in json.loads(sys.argv[1]):
    os.environ.clear()
    os.environ.update({**plain, **changes})
    before = directories()
    hf_xet.XetSession().new_upload_commit(
        endpoint="http://127.0.0.1:9", token="x", token_expiry_unix_secs=9999999999)
    made = [d for d in directories() - before if os.path.basename(d) == "shard-cache"]
    (one,) = made
    answers.append(os.path.dirname(os.path.dirname(one)))
    import shutil
    shutil.rmtree(os.path.dirname(one))
print(json.dumps(answers))
"""


def bare(work: Path) -> dict[str, str]:
    """An environment with none of the variables, a home and a working directory of its own."""
    for name in ("home", "cwd", "zz"):
        (work / name).mkdir(parents=True)
    kept = {k: v for k, v in os.environ.items() if k not in VARIABLES and "XDG_" not in k}
    return {
        **kept,
        "HOME": str(work / "home"),
        "ZZ": str(work / "zz"),
        "WORK": str(work),
        "TMPDIR": "/tmp",
        "USER": "someone",
        "LOGNAME": "someone",
    }


def real(source: str, grid: list[dict[str, str]], environ: dict[str, str], cwd: Path) -> list:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", source, json.dumps(grid)],
        capture_output=True,
        text=True,
        check=False,
        env=environ,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def filled(work: Path) -> list[dict[str, str]]:
    return [{k: v.format(w=work) for k, v in environ.items()} for environ in GRID]


def test_every_place_is_where_the_real_library_says(tmp_path: Path) -> None:
    for needed in ("torch", "transformers", "accelerate"):
        pytest.importorskip(needed)
    environ, grid = bare(tmp_path), filled(tmp_path)
    version = sys.version_info
    import torch  # noqa: PLC0415

    accelerator = f"cu{torch.version.cuda.replace('.', '')}" if torch.version.cuda else "cpu"
    host = Host(
        cwd=tmp_path / "cwd",
        user="someone",
        build=f"py{version.major}{version.minor}_{accelerator}",
    )
    answers = real(ASK, grid, environ, tmp_path / "cwd")
    for changes, said in zip(grid, answers, strict=True):
        predicted = resolve({**environ, **changes}, tmp_path / "home", host=host)
        assert {place: predicted[place].value for place in said} == said, changes


def test_xet_writes_where_rust_and_not_where_the_hub_says(tmp_path: Path) -> None:
    if importlib.util.find_spec("hf_xet") is None:
        pytest.skip("hf_xet is not installed")
    environ = bare(tmp_path)
    names = ("HF_XET_CACHE", "HF_HOME", "XDG_CACHE_HOME")
    values = (f"{tmp_path}/abs", "~/t", "$ZZ/v", "rel/ative", "")
    grid = [{}, *({name: value} for name in names for value in values)]
    grid.append({"HF_XET_CACHE": "", "HF_HOME": "~/q"})
    answers = real(ASK_XET, grid, environ, tmp_path / "cwd")
    for changes, said in zip(grid, answers, strict=True):
        host = Host(cwd=tmp_path / "cwd")
        predicted = resolve({**environ, **changes}, tmp_path / "home", host=host)["xet"]
        assert str(predicted.path) == said, changes


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"PIP_CACHE_DIR": "~/b"},
        {"PIP_CACHE_DIR": "$ZZ/b"},
        {"PIP_CACHE_DIR": ""},
        {"XDG_CACHE_HOME": "rel"},
        {"XDG_CACHE_HOME": ""},
    ],
    ids=str,
)
def test_pip_says_the_same(changes: dict[str, str], tmp_path: Path) -> None:
    environ = {**bare(tmp_path), **changes, "PIP_CONFIG_FILE": "/dev/null"}
    done = subprocess.run(
        [sys.executable, "-m", "pip", "cache", "dir"],
        capture_output=True,
        text=True,
        check=True,
        env=environ,
        cwd=tmp_path / "cwd",
    )
    host = Host(cwd=tmp_path / "cwd")
    assert str(resolve(environ, tmp_path / "home", host=host)["pip"].path) == done.stdout.strip()


def test_one_value_names_three_places_and_the_traps_say_why() -> None:
    places = resolve({"HF_HOME": "$SCRATCH/hf", "SCRATCH": "/scratch/me"}, Path("/home/me"))
    assert places["hub"].value == "/scratch/me/hf/hub"
    assert places["datasets"].value == "$SCRATCH/hf/datasets"
    assert places["datasets"].traps == ("literal_variable", "relative")
    assert places["xet"].traps == ("literal_variable", "relative")
    assert places["hub"].traps == ()
    assert places["datasets"].decided_by == "HF_HOME"
    empty = resolve({"HF_HOME": ""}, Path("/home/me"))
    assert empty["hub"].value == "hub"
    assert empty["hub"].traps == ("empty", "relative")
    assert resolve({"HF_DATASETS_CACHE": "~/d"}, Path("/h"))["datasets"].traps == (
        "literal_home",
        "relative",
    )


def test_the_place_of_every_variable_is_a_place(tmp_path: Path) -> None:
    places = resolve({}, tmp_path)
    for name, variable in VARIABLES.items():
        assert variable.name == name
        assert variable.place in {"", *places}
        assert (variable.read == "nobody") == (not variable.readers) == bool(variable.until)


@pytest.mark.parametrize("value", [None, "", " ", "/a", "~/g", "$ZZ/g", "${ZZ}/g", "rel", "$NO/g"])
def test_gradiences_own_place_is_its_own_rule(value: str | None) -> None:
    environ = {"ZZ": "/z"} | ({"GRADIENCE_CACHE_DIR": value} if value is not None else {})
    found = resolve(environ, Path("/home/me")).get("gradience")
    try:
        own = cache_dir(environ, Path("/home/me"))
    except UsageError:
        assert found is None
    else:
        assert found is not None
        assert found.path == own
