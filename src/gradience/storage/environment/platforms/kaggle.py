"""Kaggle: /kaggle/working is saved as output and holds 20 GB; /kaggle/temp is not saved."""

from gradience.storage.environment.platforms.platform import Candidate, Platform

KAGGLE = Platform(
    name="kaggle",
    title="Kaggle notebook",
    variables=("KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_URL_BASE"),
    roots=(Candidate(path="/kaggle/temp", kind="the session's disk", mounted=False),),
    home="/root",
    keeps="/kaggle/working is saved, with a limit of 20 GB that df does not show: keep it for "
    "results. /kaggle/temp goes with the session.",
)
