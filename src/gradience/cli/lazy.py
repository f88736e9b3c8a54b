"""A group whose commands are imported on first use, so that `--help` stays fast."""

from typing import Any

import click

from gradience.registry import Registry


class LazyGroup(click.Group):
    """A group over a table of commands.

    Parameters
    ----------
    table : Registry of Command
    """

    def __init__(self, *arguments: Any, table: Registry[click.Command], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands, in the order of the table."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        return self.table[cmd_name] if cmd_name in self.table else None  # noqa: SIM401

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names, or an error with the nearest name."""
        if args and not args[0].startswith("-"):
            self.table[args[0]]
        return super().resolve_command(ctx, args)
