"""What a checkpoint is by the names in it: pure rules, the same for a listing and a close look.

`Trainer` writes weights, then optimizer, scheduler and random states, and `trainer_state.json`
last. A resume dies without weights or without that last file; without optimizer and scheduler it
goes on from fresh ones.

References
----------
transformers 5.24, `Trainer._save_checkpoint`, `_load_from_checkpoint`,
`_load_optimizer_and_scheduler`, `trainer_utils.get_last_checkpoint`.
"""

import re
from collections.abc import Collection
from itertools import chain, count

CHECKPOINT = re.compile(r"checkpoint-(\d+)")
STATE = "trainer_state.json"
SCHEDULER = "scheduler.pt"
RESUME = re.compile(r"optimizer.*|scheduler\.pt|scaler\.pt|rng_state.*|global_step\d+")
WEIGHTS = re.compile(r".*\.(safetensors|bin|pt|pth|gguf|distcp)")
BROKEN_PREFIX = "broken-"
"""Before the name of a checkpoint that was set aside: `checkpoint-*` is what Trainer looks for."""
OWN_DIR = ".gradience"
"""Below a run's directory: what the guard keeps there while the run goes on.

`gradience cache clean --trash` keeps its trash in a directory of the same name, so nobody removes
the whole of it: only these parts are the guard's.
"""
BALLAST, SAVING, REPLACED = "ballast", "saving", "replaced"
IN_USE = "in-use.lock"

_MODELS = frozenset(
    {
        "model.safetensors",
        "pytorch_model.bin",
        "model.safetensors.index.json",
        "pytorch_model.bin.index.json",
        "adapter_model.safetensors",
        "adapter_model.bin",
        "pytorch_model_fsdp.bin",
    }
)
_SHARDED_MODEL = re.compile(r"pytorch_model_fsdp_\d+|global_step\d+")
_OPTIMIZER = re.compile(r"optimizer\.(pt|bin)(_.*)?|optimizer_\d+|rank\d+-of-\d+-optimizer\.pt")
_RANDOM = re.compile(r"rng_state(_\d+)?\.pth")


def step_of(name: str) -> int | None:
    """The step of a directory that a resume would look at; None for any other name.

    Examples
    --------
    >>> step_of("checkpoint-500"), step_of("broken-checkpoint-500"), step_of("checkpoint-best")
    (500, None, None)
    """
    match = CHECKPOINT.fullmatch(name)
    return int(match[1]) if match else None


def aside(name: str, taken: Collection[str]) -> str:
    """A free name for a broken checkpoint that is set aside.

    Examples
    --------
    >>> aside("checkpoint-4", ()), aside("checkpoint-4", ["broken-checkpoint-4"])
    ('broken-checkpoint-4', 'broken-checkpoint-4-2')
    """
    names = chain([f"{BROKEN_PREFIX}{name}"], (f"{BROKEN_PREFIX}{name}-{n}" for n in count(2)))
    return next(free for free in names if free not in taken)


def lacking(names: Collection[str], *, subdirectories_with_adapter: bool = False) -> list[str]:
    """Why a resume from a checkpoint with these names in it would die; empty where it would not.

    Parameters
    ----------
    names : collection of str
        Files and directories directly in it.
    subdirectories_with_adapter : bool
        A directory in it holds an adapter: the weights of several adapters lie so.

    Examples
    --------
    >>> lacking(["adapter_model.safetensors", "optimizer.pt"])
    ['it has no trainer_state.json, which is written last: its save was cut off']
    """
    why = []
    if STATE not in names:
        why.append(f"it has no {STATE}, which is written last: its save was cut off")
    whole = any(n in _MODELS or _SHARDED_MODEL.fullmatch(n) for n in names)
    if not whole and not subdirectories_with_adapter:
        why.append("it has no weights that a resume would find")
    return why


def starts_anew(names: Collection[str]) -> list[str]:
    """What a resume would not find and start afresh: "optimizer", "random states".

    Examples
    --------
    >>> starts_anew(["optimizer.pt", "scheduler.pt", "rng_state.pth"])
    []
    >>> starts_anew(["optimizer.pt", "rng_state_0.pth"])
    ['optimizer and scheduler']
    """
    found = []
    deepspeed = any(re.fullmatch(r"global_step\d+", n) for n in names)
    optimizer = any(_OPTIMIZER.fullmatch(n) for n in names) and SCHEDULER in names
    if not optimizer and not deepspeed:
        found.append("optimizer and scheduler")
    if not any(_RANDOM.fullmatch(n) for n in names):
        found.append("random states")
    return found
