"""How counts, shares and numbers read on a page. Pure."""

from gradience.page import number


def share(value: float | None) -> str:
    """A share in percent, with two digits where it is small.

    Examples
    --------
    >>> share(0.5), share(0.0312), share(0.00038), share(0.0), share(None)
    ('50%', '3.1%', '0.038%', '0%', '-')
    """
    if value is None:
        return "-"
    return f"{value:.0%}" if value >= 0.0995 or value == 0 else f"{100 * value:.2g}%"


def figures(value: float) -> str:
    """Three digits, zeros kept, so that the numbers of a column end alike.

    Examples
    --------
    >>> figures(1.7), figures(5.0), figures(0.00511), figures(1234.5), figures(3e-9)
    ('1.70', '5', '0.00511', '1230', '3e-09')
    """
    if value == int(value) or not 1e-4 <= abs(value) < 100:
        return number(value)
    return f"{value:#.3g}".rstrip(".")
