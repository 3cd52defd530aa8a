"""Where tables are printed."""

from rich.console import Console

_PIPED_WIDTH = 168


def console() -> Console:
    """Return a console; what is piped into a file is not cut to the 80 columns of a terminal that is not there."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=_PIPED_WIDTH)
