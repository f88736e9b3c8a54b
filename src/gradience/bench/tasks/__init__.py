"""One module per task, one line each here: what a bench can teach and ask."""

from gradience.bench.tasks.task import Task
from gradience.registry import Registry

_HERE = "gradience.bench.tasks"

TASKS: Registry[Task] = Registry(
    "task",
    {
        "classification": f"{_HERE}.classification:CLASSIFICATION",
        "gsm8k": f"{_HERE}.gsm8k:GSM8K",
        "perplexity": f"{_HERE}.perplexity:PERPLEXITY",
        "lm_eval": f"{_HERE}.lm_eval:LM_EVAL",
    },
)
