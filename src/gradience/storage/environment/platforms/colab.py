"""Google Colab: one disk, wiped at the end; Drive is a mount for results, not for caches."""

from gradience.storage.environment.platforms.platform import Candidate, Platform

COLAB = Platform(
    name="colab",
    title="Google Colab",
    variables=("COLAB_RELEASE_TAG", "COLAB_GPU", "VERTEX_PRODUCT"),
    roots=(Candidate(path="/content", kind="the machine's disk", mounted=False),),
    home="/root",
    keeps="All is wiped at the end of the session. Google Drive is slow for caches, and what is "
    "deleted there still counts until its trash is emptied.",
)
