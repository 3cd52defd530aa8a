"""An option or argument that takes one of some names, and suggests the one that may have been meant."""

from collections.abc import Callable, Iterable

import click

from alexnet.shards.errors import nearest


def name_of(names: Iterable[str]) -> Callable[[str], str]:
    """Return a type for click. Unlike click's own choice, help does not list the names in a column too narrow."""
    known = tuple(names)

    def name(value: str) -> str:
        if value not in known:
            raise click.BadParameter(f"{value}: must be one of {', '.join(known)}{nearest(value, known)}")
        return value

    return name
