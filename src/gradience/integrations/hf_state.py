"""A Trainer's state: how much it is, and its smallest form from which a resume goes on exactly.

The smallest form is an ordinary `checkpoint-<step>` to `Trainer`, without what a resume does not
read: of a PEFT model the adapter, of any other model the weights that training changes; optimizer,
scheduler and random states; `trainer_state.json` last. Frozen weights, tokenizer and arguments are
left out: the program that resumes has them.

References
----------
transformers 5.24, `Trainer._load_from_checkpoint` (weights are loaded with `strict=False`),
`_load_optimizer_and_scheduler`, `_load_rng_state`.
"""

import math
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import IntervalStrategy

from gradience.storage.checkpoints.names import STATE
from gradience.storage.guard.need import Weights

_WEIGHTS = "model.safetensors"
_CONFIG = "config.json"
_SMALL_OPTIMIZERS = {"adafactor": 0.1, "lion": 1.0, "rmsprop": 1.0, "adagrad": 1.0}


def weigh(trainer: Any) -> Weights:
    """What of this trainer would go into a checkpoint, in bytes."""
    model = unwrapped(trainer)
    trained = sum(_nbytes(p) for p in model.parameters() if p.requires_grad)
    everything = sum(_nbytes(t) for t in [*model.parameters(), *model.buffers()])
    tokenizer = trainer.processing_class
    return Weights(
        saved=trained if is_peft(model) else everything,
        trained=trained,
        optimizer=_optimizer_bytes(trainer.optimizer, trained),
        tokens=len(tokenizer) if hasattr(tokenizer, "__len__") else 0,
    )


def saves_at_all(args: Any) -> bool:
    """Whether a run with these arguments saves checkpoints."""
    return _save_strategy(args) != "no"


def planned_saves(args: Any, state: Any) -> int:
    """How often the rest of this run will save."""
    strategy = _save_strategy(args)
    left: int = max(0, state.max_steps - state.global_step)
    epochs = math.ceil(max(0.0, state.num_train_epochs - (state.epoch or 0.0)))
    if strategy == "steps":
        return math.ceil(left / max(1.0, float(state.save_steps)))
    if strategy == "best" and args.eval_strategy == IntervalStrategy.STEPS:
        return math.ceil(left / max(1.0, float(state.eval_steps)))
    return epochs if strategy in ("epoch", "best") else 0


def _save_strategy(args: Any) -> str:
    return str(getattr(args.save_strategy, "value", args.save_strategy))


def kept(args: Any) -> int | None:
    """How many checkpoints the run keeps; None if all."""
    limit: int | None = args.save_total_limit
    if limit is None or limit <= 0:
        return None
    return max(limit, 2) if args.metric_for_best_model is not None else limit


def write_smallest(trainer: Any, folder: Path, *, optimizer: bool) -> None:
    """Write what a resume reads, and nothing more; `trainer_state.json` comes last.

    Parameters
    ----------
    optimizer : bool
        Without it, optimizer and scheduler would start anew.

    Raises
    ------
    Exception
        Whatever the libraries raise when the disk refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = unwrapped(trainer)
    writes = trainer.args.should_save  # in one process of several
    if writes and is_peft(model):
        model.save_pretrained(str(folder))
    elif writes:
        _save_trained(model, folder)
    if optimizer:
        trainer._save_optimizer_and_scheduler(str(folder))
        trainer._save_scaler(str(folder))
    trainer._save_rng_state(str(folder))
    if writes:
        _save_state(trainer, folder)


def _save_state(trainer: Any, folder: Path) -> None:
    state = trainer.state
    for callback in [*trainer.callback_handler.callbacks, trainer.control]:
        if isinstance(callback, ExportableState):
            name = type(callback).__name__
            if not isinstance(state.stateful_callbacks.get(name), list):
                state.stateful_callbacks[name] = callback.state()
    if state.best_global_step == state.global_step:
        state.best_model_checkpoint = str(folder)
    state.save_to_json(str(folder / STATE))


class RandomStates:
    """The random states of this process at one moment."""

    def __init__(self) -> None:
        self._python = random.getstate()
        self._numpy = np.random.get_state()
        self._torch = torch.random.get_rng_state()
        self._cuda = (
            torch.cuda.get_rng_state_all()
            if torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
            else None
        )

    def restore(self) -> None:
        """Set them again."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.random.set_rng_state(self._torch)
        if self._cuda is not None:
            torch.cuda.set_rng_state_all(self._cuda)


def unwrapped(trainer: Any) -> Any:
    """The model itself, out of what wraps it for several devices or for compilation."""
    return trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)


def is_peft(model: Any) -> bool:
    """Whether it is a PEFT model, whose `save_pretrained` writes the adapter alone."""
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def _save_trained(model: Any, folder: Path) -> None:
    """Weights that training changes, and buffers; each storage once, as safetensors asks."""
    from safetensors.torch import save_file  # noqa: PLC0415 - on the day it is needed

    kept = dict(model.named_parameters())  # tied weights come once
    whole = all(p.requires_grad for p in kept.values())
    tensors = {n: p for n, p in kept.items() if p.requires_grad}
    persistent = model.state_dict().keys()
    tensors |= {n: b for n, b in model.named_buffers() if n in persistent}
    save_file(
        {name: tensor.detach().contiguous() for name, tensor in tensors.items()},
        folder / _WEIGHTS,
        metadata={"format": "pt"},
    )
    # Without a config nobody can take a part of a model for the whole one.
    if whole and hasattr(model, "config"):
        model.config.to_json_file(str(folder / _CONFIG))


def _optimizer_bytes(optimizer: Any, trained_bytes: int) -> int:
    """Of its state, if it made a step; else as much as its kind will have."""
    states = getattr(optimizer, "state", None)
    if states:
        tensors = (t for s in states.values() if isinstance(s, dict) for t in _tensors(s.values()))
        return sum(_nbytes(t) for t in tensors)
    inner = getattr(optimizer, "optimizer", optimizer)
    name = type(inner).__name__.lower()
    if name == "sgd":
        momentum = any(g.get("momentum", 0) for g in inner.param_groups)
        return trained_bytes if momentum else 0
    if "8bit" in name:
        return trained_bytes // 2
    factor = next((f for kind, f in _SMALL_OPTIMIZERS.items() if kind in name), 2.0)
    return round(trained_bytes * factor)


def _tensors(values: Iterable[Any]) -> Iterable[torch.Tensor]:
    return (value for value in values if isinstance(value, torch.Tensor))


def _nbytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
