"""Recipes: settings under a name, as TOML files that come with the package. Listing them loads neither torch nor DALI.

A recipe may stand on another: `base = "paper"` takes over all that it says, and what follows changes it.
"""

import tomllib
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

DEFAULT_RECIPE = "paper"
_BASE = "base"

# The recipe a network is trained with when only its name is given.
_RECIPE_OF_ARCH = {
    "alexnet-2012": "paper",
    "alexnet-2012-source": "source-2012",
    "alexnet-2012-conv6": "conv6",
    "alexnet-2012-one-tower": "one-tower",
}


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
