"""The entry point: commands are imported when used, errors become two lines and an exit code."""

import io
import os
import sys
from typing import Any, NoReturn

import click

from gradience import __version__
from gradience.cli.visible import visible
from gradience.errors import GradienceError
from gradience.registry import Registry

COMMANDS: Registry[click.Command] = Registry(
    "command",
    {
        "audit": "gradience.cli.audit:audit",
        "cache": "gradience.cli.cache:cache",
        "doctor": "gradience.cli.doctor:doctor",
        "env": "gradience.cli.env:env",
    },
)

_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class LazyGroup(click.Group):
    """A group whose commands are imported on first use, so that `--help` stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        return COMMANDS[cmd_name] if cmd_name in COMMANDS else None  # noqa: SIM401

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names, or an error with the nearest name."""
        if args and not args[0].startswith("-"):
            COMMANDS[args[0]]
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gradience")
def cli() -> None:
    """Look at a LoRA run: what its adapter learned, and where its bytes go.

    Exit codes: 0 done; 1 bad news (--fail-on); 2 usage; 3 unreadable adapter, base or artifact;
    4 a missing extra; 5 the disk refused.
    """


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a C locale must not end in a traceback
    try:
        result: Any = cli.main(args=args, prog_name="gradience", standalone_mode=False)
    except GradienceError as error:
        click.echo(f"error: {visible(str(error))}\nhint: {visible(error.remedy)}", err=True)
        sys.exit(int(error.exit_code))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped.", err=True)
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        # The reader went away (`| head`); what is left in the buffer must not raise at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(result if isinstance(result, int) else 0)
