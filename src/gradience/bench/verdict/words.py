"""Scores and chances in words: points for shares, plain numbers for other scores."""

import math

from gradience.page import number


def signed(value: float, *, binary: bool) -> str:
    """A difference: `-0.31 points` of a share, else a number with its sign.

    Examples
    --------
    >>> signed(-0.0031, binary=True), signed(0.0, binary=True), signed(0.0123, binary=False)
    ('-0.31 points', '0 points', '+0.0123')
    """
    if binary:
        points = f"{100 * value:+.2f}"
        return "0 points" if float(points) == 0 else f"{points} points"
    return f"{'+' if value > 0 else ''}{number(value)}"


def bare(value: float, *, binary: bool) -> str:
    """A difference without its unit, for a column whose head names it.

    Examples
    --------
    >>> bare(-0.0031, binary=True), bare(0.0123, binary=False)
    ('-0.31', '+0.0123')
    """
    return signed(value, binary=binary).removesuffix(" points")


def interval(mean: float, lower: float, upper: float, *, binary: bool) -> str:
    """A difference with its bounds.

    Examples
    --------
    >>> interval(-0.0031, -0.012, 0.0058, binary=True)
    '-0.31 points (-1.20 to +0.58)'
    """
    low, high = bare(lower, binary=binary), bare(upper, binary=binary)
    return f"{signed(mean, binary=binary)} ({low} to {high})"


def amount(value: float, *, binary: bool) -> str:
    """A size without a sign: `2.5 points`.

    Examples
    --------
    >>> amount(0.025, binary=True), amount(0.03, binary=False)
    ('2.5 points', '0.03')
    """
    return f"{number(100 * value)} points" if binary else number(value)


def score(value: float, *, binary: bool) -> str:
    """A score: a share in percent, else a number.

    Examples
    --------
    >>> score(0.9234, binary=True), score(-1.2345678, binary=False)
    ('92.34%', '-1.2346')
    """
    return f"{100 * value:.2f}%" if binary else f"{value:.5g}"


def chance(value: float) -> str:
    """A chance in percent, never rounded up to certainty nor over a limit it missed.

    Examples
    --------
    >>> chance(0.7996), chance(0.8), chance(0.9999), chance(1.0), chance(0.001), chance(1e-30)
    ('79%', '80%', '99%', '100%', '0.1%', '<0.1%')
    """
    whole = 100 * value + 1e-9
    if 0 < value < 0.001:
        return "<0.1%"
    return f"{math.floor(whole)}%" if whole >= 1 else f"{number(100 * value, 1)}%"


def p_value(value: float) -> str:
    """A p-value.

    Examples
    --------
    >>> p_value(0.0312), p_value(1e-9), p_value(0.05), p_value(0.994), p_value(0.9991), p_value(1)
    ('0.031', '<0.0001', '0.05', '0.99', '>0.99', '1')
    """
    if value < 1e-4:
        return "<0.0001"
    shown = number(value, 2)
    return ">0.99" if shown == "1" and value < 1 else shown


def level(value: float) -> str:
    """A level of a test.

    Examples
    --------
    >>> level(0.05), level(0.05 / 3)
    ('0.05', '0.0167')
    """
    return number(value, 3)
