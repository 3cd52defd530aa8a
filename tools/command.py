"""What every command shares: how it ends when it cannot go on, in one clear line and never in a traceback."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import click

from alexnet.shards.errors import InputError, one_line
from alexnet.tools.standard_output import OutputError, standard_output

P = ParamSpec("P")
R = TypeVar("R")


BROKEN_PIPE = 141
"""As a shell counts it: what read the output has left, as `head` does when it has its lines."""


class StoppedError(Exception):
    """End a command that did what it could and can be continued: one line, exit code 1."""


class UserMistake(click.ClickException):
    """Print `Error: <message>` on stderr and leave with exit code 2."""

    exit_code = 2


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


class Command(click.Command):
    """A command of the shell; it also ends in one line where standard output cannot be written."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run it: exit code 1 then, or, where a pipe is broken, 141 without a word."""
        try:
            with standard_output():
                return super().main(*args, **kwargs)
        except OutputError as error:
            if error.broken_pipe:
                raise SystemExit(BROKEN_PIPE) from None
            click.echo(f"Error: {error}; make room there, or send it elsewhere", err=True)
            raise SystemExit(1) from None


class Group(Command, click.Group):
    """A command with others below it."""
