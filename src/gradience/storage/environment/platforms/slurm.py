"""Clusters with SLURM: weights on scratch, compile caches on the node's own disk."""

from gradience.storage.environment.platforms.platform import Candidate, Platform

SLURM = Platform(
    name="slurm",
    title="SLURM cluster",
    variables=("SLURM_JOB_ID", "SLURM_CLUSTER_NAME", "SLURM_CONF", "SCRATCH"),
    roots=(
        Candidate(path="$SCRATCH", kind="the scratch file system"),
        Candidate(path="$WORK", kind="the work file system"),
    ),
    local=("$SLURM_TMPDIR",),
    keeps="Many sites delete files on scratch that nobody has read for weeks; $SLURM_TMPDIR goes "
    "with the job.",
)
