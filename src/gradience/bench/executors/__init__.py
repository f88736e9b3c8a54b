"""Where trials run: a module per place, under the name that `executor.name` gives.

One module and one line here add another; the contract is `executor.Executor`.
"""

from gradience.bench.executors.executor import ExecutorKind
from gradience.registry import Registry

EXECUTORS: Registry[ExecutorKind] = Registry(
    "executor",
    {
        "local": "gradience.bench.executors.local:LOCAL",
        "ray": "gradience.bench.executors.ray:RAY",
        "slurm": "gradience.bench.executors.slurm:SLURM",
    },
)
