"""One module per platform, one line each here, the most specific first.

Signals are hints: `detect` asks the platforms in this order and holds each hint against the
measured mounts.
"""

from gradience.registry import Registry
from gradience.storage.environment.platforms.platform import Platform

_HERE = "gradience.storage.environment.platforms"

PLATFORMS: Registry[Platform] = Registry(
    "platform",
    {
        "runpod_serverless": f"{_HERE}.runpod_serverless:RUNPOD_SERVERLESS",
        "runpod": f"{_HERE}.runpod:RUNPOD",
        "vast": f"{_HERE}.vast:VAST",
        "lambda": f"{_HERE}.lambda_cloud:LAMBDA",
        "paperspace": f"{_HERE}.paperspace:PAPERSPACE",
        "colab": f"{_HERE}.colab:COLAB",
        "kaggle": f"{_HERE}.kaggle:KAGGLE",
        "sagemaker": f"{_HERE}.sagemaker:SAGEMAKER",
        "modal": f"{_HERE}.modal:MODAL",
        "hf_spaces": f"{_HERE}.hf_spaces:HF_SPACES",
        "databricks": f"{_HERE}.databricks:DATABRICKS",
        "slurm": f"{_HERE}.slurm:SLURM",
        "kubernetes": f"{_HERE}.kubernetes:KUBERNETES",
        "wsl": f"{_HERE}.wsl:WSL",
        "docker": f"{_HERE}.docker:DOCKER",
        "local": f"{_HERE}.local:LOCAL",
    },
)
