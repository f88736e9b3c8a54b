"""RunPod serverless workers: a network volume, if there is one, is at /runpod-volume."""

from gradience.storage.environment.platforms.platform import Candidate, Platform

RUNPOD_SERVERLESS = Platform(
    name="runpod_serverless",
    title="RunPod serverless worker",
    variables=("RUNPOD_ENDPOINT_ID",),
    roots=(Candidate(path="/runpod-volume", kind="the network volume"),),
    home="/root",
    keeps="/runpod-volume is shared by all workers of the endpoint; all else goes with the worker.",
)
