"""Paperspace: /storage is shared by the team's notebooks, /notebooks belongs to one."""

from gradience.storage.environment.platforms.platform import Candidate, Platform

PAPERSPACE = Platform(
    name="paperspace",
    title="Paperspace notebook",
    variables=("PAPERSPACE_NOTEBOOK_REPO_ID", "PAPERSPACE_FQDN"),
    roots=(
        Candidate(path="/storage", kind="the persistent storage"),
        Candidate(path="/notebooks", kind="the notebook's disk"),
    ),
    home="/root",
    keeps="/storage and /notebooks survive, within your plan's limit, which df need not show.",
)
