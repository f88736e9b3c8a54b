"""Names of users and groups."""

import grp
import pwd


def user_name(number: int) -> str:
    """A user's name, or the number where there is none (containers)."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def group_name(number: int) -> str:
    """A group's name, or the number where there is none."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
