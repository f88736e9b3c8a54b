"""The findings of `gradience monitor`, which are the alerts in a run's log."""

from gradience.findings import Catalogue, Severity

MONITOR = Catalogue()
"""Every kind that `gradience monitor` can report, by code."""

LOSS_NOT_FINITE = MONITOR.add(
    "loss_not_finite",
    Severity.ERROR,
    "The training or evaluation loss is NaN or infinite.",
    "Stop, and go on from the last checkpoint before it, with a lower learning rate, bf16 in place "
    "of fp16, and a look at the batch of that step.",
)
GRADIENT_NOT_FINITE = MONITOR.add(
    "gradient_not_finite",
    Severity.ERROR,
    "The gradient norm is NaN or infinite, so that the optimizer writes NaN into the weights. The "
    "Trainer may hide it from the loss (logging_nan_inf_filter). In fp16 the loss scaler skips "
    "such steps, so that only three logged in a row count.",
    "Stop, and go on from the last checkpoint before it, with a lower learning rate, bf16 in place "
    "of fp16, and a look at the batch of that step.",
)
LOSS_DIVERGED = MONITOR.add(
    "loss_diverged",
    Severity.ERROR,
    "The loss gave back at least half of what it had won, far beyond its noise.",
    "Stop, and go on from a checkpoint at the best step, with a lower learning rate or a longer "
    "warmup.",
)
GRADIENT_SPIKE = MONITOR.add(
    "gradient_spike",
    Severity.WARNING,
    "The gradient norm is more than ten times its median, and far beyond its spread. One burst is "
    "told once.",
    "A single one is met by clipping (max_grad_norm). If they come back, lower the learning rate "
    "and look at the data of these steps.",
)
OVERFITTING = MONITOR.add(
    "overfitting",
    Severity.WARNING,
    "The evaluation loss rose in two evaluations in a row, to a twentieth above its best, while "
    "the training loss fell.",
    "Keep the checkpoint of the best evaluation (load_best_model_at_end=True); train for fewer "
    "steps, on more data, or at a lower rank.",
)
THROUGHPUT_DROP = MONITOR.add(
    "throughput_drop",
    Severity.WARNING,
    "Steps take more than twice as long as they did, over the last five that were logged.",
    "Look at what else runs on the machine, at the temperature of the GPU, and at the data loader "
    "or a network disk.",
)
DISK_FILLING = MONITOR.add(
    "disk_filling",
    Severity.WARNING,
    "At the rate of the last quarter of an hour the disk is full before the run ends.",
    "Set save_total_limit or save_only_model, or free space: `gradience cache du` and `gradience "
    "checkpoints prune` show where.",
)
DISK_ROOM = MONITOR.add(
    "disk_room",
    Severity.WARNING,
    "The guard of the run found little room, or could not keep its reserve.",
    "Free space: `gradience cache du` shows where.",
)
CHECKPOINT_SET_ASIDE = MONITOR.add(
    "checkpoint_set_aside",
    Severity.INFO,
    "A checkpoint that an earlier end left broken was set aside before the run began, so that a "
    "resume takes a complete one.",
    "Nothing: `gradience checkpoints prune` removes it.",
)
GUARD_HINDERED = MONITOR.add(
    "guard_hindered",
    Severity.WARNING,
    "The guard of the run could not do its work: the saves are not guarded, another run saves "
    "there, or a broken checkpoint could not be set aside.",
    "See what the message says.",
)
SAVE_FAILED = MONITOR.add(
    "save_failed",
    Severity.WARNING,
    "The disk refused a checkpoint; the guard made room and tried again, or stopped the run.",
    "Free space, or save less (save_total_limit, save_only_model).",
)
STOPPED_BY_FULL_DISK = MONITOR.add(
    "stopped_by_full_disk",
    Severity.ERROR,
    "The guard ended the run, because no further checkpoint would have fitted.",
    "Free space and resume with the command in the message.",
)
RUN_FAILED = MONITOR.add(
    "run_failed",
    Severity.ERROR,
    "The run ended with an error.",
    "See its message and the log of the program.",
)
RUN_SILENT = MONITOR.add(
    "run_silent",
    Severity.WARNING,
    "No end was logged, and nothing else for ten minutes and twenty times the usual distance of "
    "two lines: the process was killed, hangs, or can no longer write.",
    "See whether the process is still there; `gradience checkpoints ls` shows what it would resume "
    "from.",
)
LINES_LOST = MONITOR.add(
    "lines_lost",
    Severity.WARNING,
    "The disk refused lines of this log, so that it is not the whole story.",
    "Free space there.",
)
