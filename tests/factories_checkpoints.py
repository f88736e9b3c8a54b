"""Checkpoints as a Trainer leaves them, and as a full disk does."""

import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file


def make_checkpoint(run: Path, step: int, *, best: str = "", without: tuple[str, ...] = ()) -> Path:
    """A small complete checkpoint, but for the files that are left out."""
    folder = run / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    save_file({"w": np.arange(1, 65, dtype=np.float32)}, folder / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"step": torch.ones(100)}, folder / name)
    state = {"global_step": step, "best_model_checkpoint": best or None, "log_history": []}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    for name in without:
        (folder / name).unlink()
    return folder


def age(folder: Path, seconds: float = 3600.0) -> None:
    """Make a checkpoint as old as one that nobody is writing any more."""
    then = time.time() - seconds
    for path in (*folder.iterdir(), folder):
        os.utime(path, (then, then))


def cut(path: Path, part: float = 0.5) -> None:
    """Cut a file off, as a full disk does."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
