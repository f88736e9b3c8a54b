"""The host as this process finds it: working directory, login name, system."""

import getpass
import os
import sys
from pathlib import Path

from gradience.errors import UsageError
from gradience.storage.environment.readers import Host


def this_host() -> Host:
    """What the defaults of some libraries depend on beside the environment.

    Raises
    ------
    UsageError
        If the working directory is gone: relative values would land nowhere.
    """
    return Host(cwd=working_directory(), user=_user(), system=sys.platform)


def working_directory() -> Path:
    """The working directory.

    Raises
    ------
    UsageError
        If it was deleted.
    """
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise UsageError(
            "the working directory was deleted", remedy="Go to one that is there: cd ~"
        ) from error


def _user() -> str:
    """The login name that inductor's default directory ends in; as torch where there is none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid_{os.getuid()}"
