"""`--fail-on`, the same wherever findings decide the exit code."""

from collections.abc import Callable

import click


def fail_on_option(
    *, default: tuple[str, ...] = (), what: str = "a finding", page: str = "docs/findings.md"
) -> "Callable[[Callable[..., int]], Callable[..., int]]":
    """The option.

    Parameters
    ----------
    default : tuple of str
        Codes and severities, without the option.
    what : str
        What carries a code here.
    page : str
        Lists the codes.
    """
    return click.option(
        "--fail-on",
        multiple=True,
        default=default,
        show_default=bool(default),
        metavar="CODE|SEVERITY|never",
        help=f"Exit with 1 if {what} has this code, or this severity or a graver one (info, "
        f"warning, error). May be given more than once. Codes: {page}.",
    )
