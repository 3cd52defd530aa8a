"""What every command shares: how it ends when it cannot go on, in one clear line and never in a traceback."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import click

from alexnet.shards.errors import InputError, one_line
from alexnet.tools.output import guard_output, output_is_lost

P = ParamSpec("P")
R = TypeVar("R")


class StoppedError(Exception):
    """End a command that did what it could and can be continued: one line, exit code 1."""


class UserMistake(click.ClickException):
    """Print `Error: <message>` on stderr and leave with exit code 2."""

    exit_code = 2


class Program(click.Command):
    """A command that is a process of its own: it ends well whatever becomes of its output."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run it and leave, with exit code 1 where something that was to be printed is lost."""
        guard_output()
        try:
            return super().main(*args, **kwargs)
        except SystemExit as end:
            if not end.code and output_is_lost():
                raise SystemExit(1) from None
            raise


class Programs(Program, click.Group):
    """A program of several commands."""


def one_line_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Turn an InputError into its one line and exit code 2, a StoppedError into its line and exit code 1."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except InputError as error:
            raise UserMistake(one_line(str(error))) from None
        except StoppedError as error:
            raise click.ClickException(one_line(str(error))) from None

    return wrapped


def tell(line: str, *, err: bool = False) -> None:
    """Print one line, whatever is in the names that it holds; on standard error with `err`."""
    click.echo(one_line(line), err=err)
