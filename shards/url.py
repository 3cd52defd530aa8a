"""What names a data set in object storage: a URL, and options. Nothing here loads what a network needs."""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from alexnet.shards.errors import InputError
from alexnet.shards.files import read_json

OPTIONS = "ALEXNET_STORAGE_OPTIONS"
"""The environment variable with a JSON object of options, which child processes inherit."""
ORIGIN_NAME = "origin.json"

_URL = re.compile(r"(s3|gs|az|https?):/+(?=[^/])")
_MISTYPED = re.compile(r"([A-Za-z][\w+.-]+):(/|$)|(?i:s3|gs|az|https?):")


class StorageError(InputError):
    """Say in one line which object could not be read or written, and why."""


class MissingError(StorageError):
    """Say that there is no such object."""


@dataclass
class Traffic:
    """Count what went over the network: `bytes` that arrived or were sent, `requests`, and `retries` among them.

    `hits`, `misses`: shards that were in the cache when they were asked for, and those that had to be fetched.
    """

    bytes: int = 0
    requests: int = 0
    retries: int = 0
    hits: int = 0
    misses: int = 0


def as_url(where: str | os.PathLike[str]) -> str | None:
    """Return the URL that a data set is named by, without a slash at its end; None for a path.

    A `Path` has lost the second of two slashes. Raises InputError for a URL that holds more than a place, or is none
    that can be used: as a path it would be written to, far from where it was meant.
    """
    text = os.fspath(where)
    if not _URL.match(text):
        if _MISTYPED.match(text):
            raise InputError(
                f"{text}: is no URL that can be used: they begin with s3://, gs://, az://, http:// or https:// and a "
                "name; a folder that is called so, give by its whole path"
            )
        return None
    url = _URL.sub(r"\1://", text, count=1).rstrip("/")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InputError(f"{url.rpartition('@')[2]}: is no URL: {error}") from None
    if {".", ".."}.intersection(parts.path.split("/")):
        raise InputError(f"{url.rpartition('@')[2]}: leads through a folder . or ..; give the place itself")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InputError(
            f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}: holds a name, a password or a query; "
            "give credentials in the environment, or by --storage-option key=value"
        )
    return url


def set_options(assignments: Iterable[str]) -> None:
    """Take options for all storage, `key=value` as obstore knows them; child processes inherit them."""
    options = options_given()
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise InputError("--storage-option: must read key=value, such as region=eu-central-1")
        options[key.strip().lower()] = value.strip()
    if options:
        os.environ[OPTIONS] = json.dumps(options)


def options_given() -> dict[str, str]:
    """Return the options for all storage."""
    try:
        options = json.loads(os.environ.get(OPTIONS) or "{}")
        return {str(key): str(value) for key, value in options.items()}
    except (ValueError, AttributeError):
        raise InputError(f'{OPTIONS}: must be a JSON object of options, such as {{"region": "eu-central-1"}}') from None


def place_of(root: Path) -> str:
    """Return what people call a data set: its URL, also of a folder that stands in for it, or its path."""
    return origin_of(root) or as_url(root) or str(root)


def origin_of(root: Path) -> str | None:
    """Return the URL that a folder stands in for, None for one that is a data set itself."""
    try:
        return str(read_json(root / ORIGIN_NAME, dict[str, str], mend="delete the folder")["url"])
    except (FileNotFoundError, NotADirectoryError):
        return None
