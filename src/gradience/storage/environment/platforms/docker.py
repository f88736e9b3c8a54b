"""Docker and podman: the volume at /app/cache; the container's own layer is wiped with it."""

from gradience.storage.environment.platforms.platform import Candidate, Platform

DOCKER = Platform(
    name="docker",
    title="container",
    variables=("container",),
    marks=("/.dockerenv", "/run/.containerenv", "/app/cache"),
    roots=(Candidate(path="/app/cache", kind="the volume"),),
    style="docker",
    home="/root",
    keeps="Only volumes outlive the container.",
)
