"""Hugging Face Spaces: persistent storage, where it was bought, is at /data."""

from gradience.storage.environment.platforms.platform import Candidate, Platform

HF_SPACES = Platform(
    name="hf_spaces",
    title="Hugging Face Space",
    variables=("SPACE_ID",),
    roots=(Candidate(path="/data", kind="the persistent storage"),),
    home="/home/user",
    keeps="/data survives a restart; the Space's own 50 GB disk does not.",
)
