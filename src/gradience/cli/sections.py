"""A command whose help lists its options under headings."""

from collections.abc import Mapping, Sequence
from typing import Any

import click


class Sectioned(click.Command):
    """A command with many options.

    Parameters
    ----------
    sections : mapping of str to sequence of str
        Heading to the names of parameters, in the order in which help shows them; the last one has
        those that are named under none too.
    """

    def __init__(
        self, *arguments: Any, sections: Mapping[str, Sequence[str]], **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, section by section."""
        options = {p.name: p for p in self.get_params(ctx) if isinstance(p, click.Option)}
        shown = {
            heading: [options.pop(n) for n in names] for heading, names in self.sections.items()
        }
        shown[list(shown)[-1]] += options.values()
        for heading, listed in shown.items():
            with formatter.section(heading):
                formatter.write_dl([r for option in listed if (r := option.get_help_record(ctx))])
