"""The one exception for what a user gave and can mend."""


class InputError(ValueError):
    """Say in one line what was given, what is allowed and how to mend it.

    Commands print it and leave with exit code 2; a library user sees an ordinary `ValueError`.
    """
