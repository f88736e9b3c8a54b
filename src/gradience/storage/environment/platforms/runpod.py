"""RunPod pods: the volume at /workspace survives a stop, the container's disk does not."""

from gradience.storage.environment.platforms.platform import Candidate, Platform

RUNPOD = Platform(
    name="runpod",
    title="RunPod pod",
    variables=("RUNPOD_POD_ID", "RUNPOD_DC_ID"),
    devices=("runpod.net",),
    roots=(Candidate(path="/workspace", kind="the pod's volume"),),
    home="/root",
    keeps="/workspace survives a stop; the container's disk is wiped. df shows the cluster on a "
    "network volume, not your limit.",
)
