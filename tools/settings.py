"""Settings: frozen dataclasses of typed fields, a section each, changed key by key. What is wrong is refused in a line.

One mechanism for recipes, `--set key=value` and the options that are settings under a shorter name. A key reads
`section.name`; text is converted to the type of its field, and bounds are checked by the section itself. Recipes are
settings under a name, TOML files that come with the package: one may stand on another, `base = "paper"`, whose settings
it takes over and changes. Listing them loads neither torch nor DALI.
"""

import dataclasses
import math
import tomllib
from collections.abc import Iterable, Iterator
from importlib.resources import files
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from alexnet.shards.errors import InputError, nearest

S = TypeVar("S")

DEFAULT_RECIPE = "paper"
_BASE = "base"
# The recipe a network is trained with when only its name is given.
_RECIPE_OF_ARCH = {
    "alexnet-2012": "paper",
    "alexnet-2012-source": "source-2012",
    "alexnet-2012-conv6": "conv6",
    "alexnet-2012-one-tower": "one-tower",
}

_MUST_BE = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def assigned(assignment: str) -> tuple[str, str]:
    """Return key and value of `key=value`. Raises InputError if it does not read so."""
    key, equals, value = assignment.partition("=")
    if not equals:
        raise InputError(f"--set {assignment}: must read key=value, such as optim.lr=0.02")
    return key.strip(), value.strip()


def with_settings(settings: S, changes: Iterable[tuple[str, Any]]) -> S:
    """Return the settings with keys changed, in order; text, or a value of TOML, is converted to the key's type.

    Raises InputError for a key that is none and a value that is not allowed.
    """
    for key, value in changes:
        section, _, name = key.partition(".")
        component: Any = getattr(settings, section, None)
        if name not in getattr(component, "__dataclass_fields__", {}):
            known = [f"{s}.{n}" for s, values in msgspec.to_builtins(settings).items() for n in values]
            likely = nearest(key, known, at_least=0.0)
            raise InputError(f"{key}: no such setting{likely} The keys are {', '.join(known)}")
        converted = _converted(key, value, get_type_hints(type(component))[name])
        changed: Any = dataclasses.replace(component, **{name: converted})
        settings = dataclasses.replace(settings, **{section: changed})  # type: ignore[type-var]
    return settings


def _converted(key: str, value: Any, wanted: Any) -> Any:
    """Convert text (or a value of TOML) to a setting's type."""
    parts = isinstance(value, str) and get_origin(wanted) is tuple
    given = [item.strip() for item in value.split(",") if item.strip()] if parts else value
    try:
        converted = msgspec.convert(given, wanted, strict=not isinstance(value, str))
        if not isinstance(converted, float) or math.isfinite(converted):
            return converted
    except msgspec.ValidationError:
        pass
    raise InputError(f"{key}={value}: must be {_allowed(wanted, str(value))}")


def _allowed(wanted: Any, value: str) -> str:
    if get_origin(wanted) is Literal:
        choices = [str(choice) for choice in get_args(wanted)]
        return f"one of {', '.join(choices)}{nearest(value, choices)}"
    return _MUST_BE.get(wanted, "whole numbers with commas between them")


def recipe_names() -> list[str]:
    """Return the shipped recipes' names, sorted."""
    names = (entry.name for entry in files("alexnet.model.recipes").iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def recipe_for(arch: str) -> str:
    """Return the recipe a network is trained with unless another is asked for: the one of its name, most often."""
    return _RECIPE_OF_ARCH.get(arch, arch)


def recipe_assignments(name: str) -> Iterator[tuple[str, Any]]:
    """Yield a recipe's keys and values, those of the recipe it stands on first."""
    text = (files("alexnet.model.recipes") / f"{name}.toml").read_text(encoding="utf-8")
    sections = tomllib.loads(text)
    if base := sections.pop(_BASE, None):
        yield from recipe_assignments(base)
    for section, values in sections.items():
        for key, value in values.items():
            yield f"{section}.{key}", value
