"""What every command shares: how it ends when it cannot go on, in one clear line and never in a traceback."""

import functools
import io
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import click

from alexnet.shards.errors import InputError, one_line

P = ParamSpec("P")
R = TypeVar("R")


class StoppedError(Exception):
    """End a command that did what it could and can be continued: one line, exit code 1."""


class UserMistake(click.ClickException):
    """Print `Error: <message>` on stderr and leave with exit code 2."""

    exit_code = 2


def one_line_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Turn an InputError into its one line and exit code 2, a StoppedError into its line and exit code 1.

    What standard output and error cannot encode, as in names, they escape.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
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
