"""Which saves the guard can stand before, and a line to the user where nothing is wrong."""

import logging
import sys
from typing import Any

from tqdm.auto import tqdm

from gradience.integrations.hf_ranks import cannot_agree

_PUSHES = (
    "push_to_hub uploads the output directory while it changes; with hub_strategy='end' saves are "
    "guarded"
)
_log = logging.getLogger("gradience.guard")


def unguarded(trainer: Any) -> str:
    """Why the saves of this Trainer go as without the guard; "" where it stands before them."""
    reasons = (
        (trainer.is_deepspeed_enabled, "DeepSpeed saves in a form of its own"),
        (trainer.is_fsdp_enabled, "FSDP saves in a form of its own"),
        (_pushes_saves(trainer.args), _PUSHES),
        (trainer.args.save_on_each_node, "save_on_each_node writes to the disks of other machines"),
        (trainer.hp_search_backend is not None, "a hyper-parameter search saves by trial"),
        (cannot_agree(trainer.args.world_size), "torch.distributed does not join its processes"),
    )
    return next((why for so, why in reasons if so), "")


def _pushes_saves(args: Any) -> bool:
    """Whether saves are pushed: a push at the end comes when the guard has left.

    Every other strategy copies the weights into the output directory after a save, and uploads all
    of that but `checkpoint-*` in the background (transformers 5.24, `_push_from_checkpoint`): the
    reserve and the save that goes on would be uploaded with it.
    """
    strategy = getattr(args.hub_strategy, "value", args.hub_strategy)
    return bool(args.push_to_hub) and strategy != "end"


def show(message: str) -> None:
    """One line on standard error, past a progress bar.

    Python shows warnings where nobody set up logging, but nothing below. This line is shown unless
    logging shows it anyhow, or the level of the logger "gradience" was raised.
    """
    logged = _log.isEnabledFor(logging.INFO) and _log.hasHandlers()
    if not logged and logging.getLogger("gradience").level <= logging.INFO:
        tqdm.write(f"gradience: {message}", file=sys.stderr)
