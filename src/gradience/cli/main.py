"""The entry point: commands are imported when used, errors become two lines and an exit code."""

import atexit
import gc
import io
import os
import sys
from typing import Any, NoReturn

import click

from gradience import __version__
from gradience.cli.lazy import LazyGroup
from gradience.cli.visible import visible
from gradience.errors import ExitCode, GradienceError
from gradience.registry import Registry

COMMANDS: Registry[click.Command] = Registry(
    "command",
    {
        "audit": "gradience.cli.audit:audit",
        "bench": "gradience.cli.bench:bench",
        "cache": "gradience.cli.cache:cache",
        "check": "gradience.cli.check:check",
        "checkpoints": "gradience.cli.checkpoints:checkpoints",
        "compress": "gradience.cli.compress:compress",
        "doctor": "gradience.cli.doctor:doctor",
        "env": "gradience.cli.env:env",
        "norms": "gradience.cli.norms:norms",
        "monitor": "gradience.cli.monitor:monitor",
        "preflight": "gradience.cli.preflight:preflight",
        "run": "gradience.cli.run:run",
    },
)

_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


@click.group(
    cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="gradience")
def cli() -> None:
    """Look at a LoRA run: what its adapter learned, how small it could be, where its bytes go.

    Exit codes: 0 done; 1 bad news (--fail-on); 2 usage; 3 unreadable adapter, base or artifact;
    4 a missing extra; 5 the disk refused; 6 a trial failed.
    """


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    # At its end Python searches all that is left for garbage: 15 ms of an audit, for nothing.
    atexit.register(gc.freeze)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller: `>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a C locale must not end in a traceback
    try:
        result: Any = cli.main(args=args, prog_name="gradience", standalone_mode=False)
    except GradienceError as error:
        told = (str(error), *(f"  {detail}" for detail in error.details))
        lines = "\n".join(visible(text) for text in told)
        click.echo(f"error: {lines}\nhint: {visible(error.remedy)}", err=True)
        sys.exit(int(error.exit_code))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped.", err=True)
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        _drop_output()  # the reader went away: `| head`
        sys.exit(0)
    except OSError:
        refused = _output_refused()
        if refused is None:
            raise
        _drop_output()
        click.echo(
            f"error: standard output cannot be written: {refused.strerror}\n"
            "hint: Free space there, or send it to another disk.",
            err=True,
        )
        sys.exit(int(ExitCode.STORAGE_REFUSED))
    sys.exit(result if isinstance(result, int) else 0)


def _output_refused() -> OSError | None:
    """Why standard output takes no more: a small piece that it refused is still in the buffer, and
    after a large one not even the end of a line is taken.
    """
    try:
        sys.stdout.flush()
        os.write(sys.stdout.fileno(), b"\n")
    except OSError as error:
        return error
    return None


def _drop_output() -> None:
    """What is left in the buffer must not raise at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
