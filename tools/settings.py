"""Settings: frozen dataclasses of typed fields, a section each, changed key by key. What is wrong is refused in a line.

One mechanism for recipes, `--set key=value` and the options that are settings under a shorter name. A key reads
`section.name`; text is converted to the type of its field, and bounds are checked by the section itself. Recipes are
TOML files of settings, that come with the package and go by their names, or a user's own: one may stand on another,
`base = "paper"`, whose settings it takes over and changes. Listing them loads neither torch nor DALI.
"""

import dataclasses
import math
import tomllib
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from alexnet.shards.errors import InputError, nearest, reason_of
from alexnet.shards.files import read_bytes

S = TypeVar("S")

DEFAULT_RECIPE = "paper"
_BASE, _SUFFIX = "base", ".toml"
_MAX_RECIPE_BYTES = 1 << 16  # one that names every setting has 2 kB
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
        component: Any = vars(settings).get(section)
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
    return sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))


def recipe_for(arch: str) -> str:
    """Return the recipe a network is trained with unless another is asked for: the one of its name, most often."""
    return _RECIPE_OF_ARCH.get(arch, arch)


def check_recipe(recipe: str) -> None:
    """Raise InputError unless this is a shipped recipe's name, or a file's, which ends in `.toml`."""
    if not recipe.endswith(_SUFFIX) and recipe not in (names := recipe_names()):
        raise InputError(f"must be a file, FILE{_SUFFIX}, or one of {', '.join(names)}{nearest(recipe, names)}")


def recipe_levels(recipe: str) -> list[tuple[str, list[tuple[str, Any]]]]:
    """Return keys and values of a recipe and of those it stands on, each with its name or file, the lowest first.

    A file's `base` is a shipped recipe's name, or a file, relative to the one that says so. Raises InputError.
    """
    levels: list[tuple[str, list[tuple[str, Any]]]] = []
    asked, files_read = recipe, set[Path]()
    while True:
        sections = _read_recipe(recipe, asked, files_read)
        base = sections.pop(_BASE, None)
        levels.insert(0, (recipe, _assignments(recipe, sections)))
        if base is None:
            return levels
        asked = f"{recipe}: {_BASE}={base}"
        if not isinstance(base, str):
            raise InputError(f"{asked}: must be text, the name of a recipe or of a file")
        recipe = str(Path(recipe).parent / base) if base.endswith(_SUFFIX) else base


def _read_recipe(recipe: str, asked: str, files_read: set[Path]) -> dict[str, Any]:
    """Return a recipe's tables. `asked`: who asked for it, for errors. `files_read`: before, whose base it is."""
    try:
        check_recipe(recipe)
        if not recipe.endswith(_SUFFIX):
            return tomllib.loads((files("alexnet.model.recipes") / f"{recipe}{_SUFFIX}").read_text(encoding="utf-8"))
        file = Path(recipe).resolve()
        if file in files_read:
            raise InputError("stands on itself; end the chain with a shipped recipe, or leave the last base out")
        files_read.add(file)
        return tomllib.loads(read_bytes(file, _MAX_RECIPE_BYTES).decode("utf-8-sig"))
    except InputError as error:
        raise InputError(f"{asked}: {error}") from None
    except (OSError, RuntimeError, ValueError) as error:  # a RuntimeError of a loop of links, or of nested brackets
        reason = "is nested too deeply" if isinstance(error, RecursionError) else reason_of(error)
    raise InputError(f"{asked}: cannot be read as a recipe ({reason}); docs/training.md shows one")


def _assignments(recipe: str, sections: dict[str, Any]) -> list[tuple[str, Any]]:
    for section, values in sections.items():
        if not isinstance(values, dict):
            raise InputError(f"{recipe}: {section}={values}: must be a table of settings, as [optim] with lr = 0.02")
    return [(f"{section}.{key}", value) for section, values in sections.items() for key, value in values.items()]
