"""The settings of a run: one frozen dataclass a component, filled by a recipe, changed by `--set key=value`.

Everything a user can get wrong in one key fails here, before any work, in one line that names the key, the value and
what is allowed. What does not go together is refused in `fitting`, once all keys are known.
"""

import dataclasses
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from alexnet.model.initialise import InitSettings
from alexnet.model.networks.settings import NetSettings
from alexnet.model.optim import OptimSettings
from alexnet.model.schedule import ScheduleSettings
from alexnet.model.trainer import TrainSettings
from alexnet.pipeline.augment import AugmentSettings
from alexnet.pipeline.settings import StreamSettings
from alexnet.shards.errors import InputError, nearest
from alexnet.tools.run.recipes import recipe_assignments


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Hold every component's settings; the field names are the first half of a `--set` key."""

    net: NetSettings = field(default_factory=NetSettings)
    init: InitSettings = field(default_factory=InitSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    stream: StreamSettings = field(default_factory=StreamSettings)

    def as_json(self) -> dict[str, Any]:
        """Return every setting as plain values, equal to what is read back from a file."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


def load_recipe(name: str) -> RunSettings:
    """Read a shipped recipe; what neither it nor its base names keeps its default."""
    return with_settings(RunSettings(), recipe_assignments(name))


def with_overrides(settings: RunSettings, assignments: tuple[str, ...]) -> RunSettings:
    """Apply `key=value` assignments in order. Raises InputError for a malformed or unknown one."""
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise InputError(f"--set {assignment}: must read key=value, such as optim.lr=0.02")
        settings = with_setting(settings, key.strip(), value.strip())
    return settings


def with_settings(settings: RunSettings, assignments: Iterable[tuple[str, Any]]) -> RunSettings:
    """Return the settings with several keys changed, in order."""
    for key, value in assignments:
        settings = with_setting(settings, key, value)
    return settings


def with_setting(settings: RunSettings, key: str, value: Any) -> RunSettings:
    """Return the settings with one key changed; text is converted to the key's type."""
    section, _, name = key.partition(".")
    component: Any = getattr(settings, section, None)
    if name not in getattr(component, "__dataclass_fields__", {}):
        known = [f"{s}.{n}" for s, values in settings.as_json().items() for n in values]
        raise InputError(f"{key}: no such setting{nearest(key, known, at_least=0.0)} The keys are {', '.join(known)}")
    if key == "net.classes":
        raise InputError("net.classes: follows from the data set's manifest and cannot be set")
    wanted = get_type_hints(type(component))[name]
    changed: Any = dataclasses.replace(component, **{name: _converted(key, value, wanted)})
    return dataclasses.replace(settings, **{section: changed})


def _converted(key: str, value: Any, wanted: Any) -> Any:
    """Convert text (or a TOML value) to a setting's type."""
    if get_origin(wanted) is Literal:
        choices = {str(choice): choice for choice in get_args(wanted)}
        if str(value) in choices:
            return choices[str(value)]
        raise InputError(f"{key}={value}: must be one of {', '.join(choices)}{nearest(str(value), list(choices))}")
    if get_origin(wanted) is tuple:
        items = [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value
        if not isinstance(items, list):
            raise InputError(f"{key}={value}: must be whole numbers with commas between them")
        return tuple(_converted(key, item, get_args(wanted)[0]) for item in items)
    return _SCALARS[wanted](key, value)


def _flag(key: str, value: Any) -> bool:
    flag = {"true": True, "false": False}.get(str(value).lower())
    if flag is None:
        raise InputError(f"{key}={value}: must be true or false")
    return flag


def _whole(key: str, value: Any) -> int:
    try:
        if isinstance(value, bool | float):
            raise ValueError
        return int(value)
    except (ValueError, TypeError):
        raise InputError(f"{key}={value}: must be a whole number") from None


def _number(key: str, value: Any) -> float:
    try:
        if isinstance(value, bool) or not math.isfinite(float(value)):
            raise ValueError
        return float(value)
    except (ValueError, TypeError):
        raise InputError(f"{key}={value}: must be a number") from None


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"{key}={value}: must be text")
    return value


_SCALARS: dict[Any, Any] = {bool: _flag, int: _whole, float: _number, str: _text}
