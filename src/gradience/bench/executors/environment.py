"""The environment of a trial's process, wherever it runs: what the numbers need.

Every executor sets it alike, so that the same trial gives the same numbers on each.
"""

from collections.abc import Mapping

FIXED = {
    "PYTHONHASHSEED": "0",
    # cuBLAS is deterministic only with a workspace of its own (CUDA C++ documentation, cuBLAS,
    # "Results reproducibility"); torch.use_deterministic_algorithms asks for it.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # The tokenizers' threads warn, or hang, when a data loader forks.
    "TOKENIZERS_PARALLELISM": "false",
    # The log is read by people.
    "PYTHONUNBUFFERED": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    # Nothing outside the output directory but caches: no run of a tracker, no upload.
    "WANDB_MODE": "disabled",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def trial_environment(
    environ: Mapping[str, str], *, threads: int, gpu: str | None = None
) -> dict[str, str]:
    """The environment of one trial.

    Parameters
    ----------
    environ : mapping
        Of the driver; what it says of caches, proxies, tokens and offline mode holds.
    threads : int
        For BLAS and OpenMP; the same for every trial of a bench, because sums in another order end
        in other last digits. A smaller OMP_NUM_THREADS of the user's holds.
    gpu : str or None
        The one device that it may see; None for none.
    """
    own = environ.get("OMP_NUM_THREADS", "")
    count = min(threads, int(own)) if own.isdecimal() and int(own) > 0 else threads
    return {
        **environ,
        **FIXED,
        **dict.fromkeys(_THREADS, str(max(1, count))),
        "CUDA_VISIBLE_DEVICES": gpu or "",
    }
