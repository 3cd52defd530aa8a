"""What every command shares: a user's mistake ends in one clear line and exit code 2, never in a traceback."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import click

from alexnet.shards.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")


class UserMistake(click.ClickException):
    """Print `Error: <message>` on stderr and leave with exit code 2."""

    exit_code = 2


def one_line_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Turn an InputError into its one line and exit code 2."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except InputError as error:
            raise UserMistake(str(error)) from None

    return wrapped
