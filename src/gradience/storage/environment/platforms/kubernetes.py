"""Kubernetes: a volume claim at a path the user chose; without one the kubelet evicts the pod."""

from gradience.storage.environment.platforms.platform import Candidate, Platform

KUBERNETES = Platform(
    name="kubernetes",
    title="Kubernetes pod",
    variables=("KUBERNETES_SERVICE_HOST",),
    marks=("/var/run/secrets/kubernetes.io",),
    roots=(Candidate(path="/app/cache", kind="the volume"),),
    any_volume=True,
    style="docker",
    home="/root",
    keeps="Only volumes outlive the pod; a pod that writes too much elsewhere is evicted, without "
    "an error in the program.",
)
