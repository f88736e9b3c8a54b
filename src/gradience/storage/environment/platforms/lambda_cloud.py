"""Lambda Cloud: sets no variable; a persistent file system is mounted below /lambda/nfs."""

from gradience.storage.environment.platforms.platform import Candidate, Platform

LAMBDA = Platform(
    name="lambda",
    title="Lambda Cloud instance",
    marks=("/lambda/nfs",),
    roots=(Candidate(path="/lambda/nfs/*", kind="the persistent file system"),),
    home="/home/ubuntu",
    keeps="Only the persistent file system outlives the instance.",
)
