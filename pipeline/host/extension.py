"""Whether the C extension is there, and what is missing where it is not.

Installing the package succeeds without it, so this is where a user learns of it.
"""

import functools
import importlib

_NEEDS = (
    "install a C compiler, Python's headers and those of libjpeg-turbo 1.5 or newer (Debian, Ubuntu: "
    "apt-get install gcc libc6-dev python3-dev libjpeg-dev), then install alexnet again"
)


@functools.cache
def available() -> str | None:
    """Return None if the host decoder can be used, else why not and what to install, in one line."""
    try:
        importlib.import_module("alexnet.pipeline.host._host")
    except ModuleNotFoundError:
        return f"the host decoder was not built; {_NEEDS}"
    except ImportError as error:  # built, but the library it was linked with is gone or is another one
        return f"the host decoder cannot be loaded ({error}); {_NEEDS}"
    return None


def require() -> None:
    """Raise RuntimeError with the line of `available` if there is no host decoder."""
    if reason := available():
        raise RuntimeError(reason)
