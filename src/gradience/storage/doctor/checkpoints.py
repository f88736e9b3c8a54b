"""Files of the checkpoints in an inventory that are cut off, as far as ends and headers tell."""

from pathlib import Path

from gradience.storage.checkpoints.judge import bad_files as bad_files_in
from gradience.storage.doctor.facts import BadFile
from gradience.storage.inventory.records import Inventory


def bad_files(inventory: Inventory) -> tuple[BadFile, ...]:
    """One record for each file that is cut off."""
    folders = [
        Path(entry.path)
        for cache in inventory.caches
        for entry in cache.entries
        if entry.what == "checkpoint"
    ]
    return tuple(
        BadFile(path=path, checkpoint=folder, detail=why)
        for folder in folders
        for path, why in bad_files_in(folder)
    )
