"""Modal: a Volume, where the function mounts one, at a path the user chose."""

from gradience.storage.environment.platforms.platform import Platform

MODAL = Platform(
    name="modal",
    title="Modal container",
    variables=("MODAL_TASK_ID", "MODAL_IS_REMOTE"),
    any_volume=True,
    home="/root",
    keeps="Only a Volume outlives the container, and only what was committed.",
)
