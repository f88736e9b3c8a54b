"""Databricks: /local_disk0 is the machine's SSD; /dbfs and /Volumes show an object store."""

from gradience.storage.environment.platforms.platform import Candidate, Platform

DATABRICKS = Platform(
    name="databricks",
    title="Databricks cluster",
    variables=("DATABRICKS_RUNTIME_VERSION",),
    roots=(Candidate(path="/local_disk0", kind="the machine's SSD"),),
    local=("/local_disk0",),
    home="/root",
    keeps="/local_disk0 goes with the cluster. /dbfs and /Volumes stay, and refuse the random "
    "writes that caches need.",
)
