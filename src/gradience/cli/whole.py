"""Numbers on the command line, with a name that a user has for them."""

import click


class Whole(click.IntRange):
    """A whole number: `click` says of others that they are no "valid integer range"."""

    name = "whole number"
