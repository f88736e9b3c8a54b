"""Vast.ai: /workspace is a directory of the container's disk, or a volume of its own."""

from gradience.storage.environment.platforms.platform import Candidate, Platform

VAST = Platform(
    name="vast",
    title="Vast.ai instance",
    variables=("VAST_CONTAINERLABEL", "VAST_TCP_PORT_22"),
    roots=(Candidate(path="/workspace", kind="the instance's disk", mounted=False),),
    home="/root",
    keeps="The disk survives a stop and goes when the instance is destroyed; its size was fixed at "
    "rental.",
)
