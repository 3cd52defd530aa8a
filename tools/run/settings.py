"""The settings of a run: one frozen dataclass a component, filled by a recipe, changed by `--set key=value`.

Everything a user can get wrong here fails before any work, in one line that names the key, the value and what is
allowed.
"""

import dataclasses
import difflib
import tomllib
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Literal, get_args, get_origin, get_type_hints

from alexnet.model.initialise import InitSettings
from alexnet.model.optim import OptimSettings
from alexnet.model.schedule import ScheduleSettings
from alexnet.model.towers import NetSettings
from alexnet.model.trainer import TrainSettings
from alexnet.pipeline.augment import AugmentSettings
from alexnet.shards.errors import InputError


@dataclass(frozen=True, kw_only=True)
class StreamSettings:
    """Settle how fast the stream runs, not what it yields: decoder threads (0: one a core), batches kept ready."""

    threads: int = 0
    depth: int = 2


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
        """Return every setting as plain values."""
        return dataclasses.asdict(self)


def load_recipe(name: str) -> RunSettings:
    """Read a shipped recipe; what it does not name keeps its default."""
    text = (files("alexnet.model.recipes") / f"{name}.toml").read_text(encoding="utf-8")
    settings = RunSettings()
    for section, values in tomllib.loads(text).items():
        for key, value in values.items():
            settings = with_setting(settings, f"{section}.{key}", value)
    return settings


def with_overrides(settings: RunSettings, assignments: tuple[str, ...]) -> RunSettings:
    """Apply `key=value` assignments in order. Raises InputError for a malformed or unknown one."""
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise InputError(f"--set {assignment}: must read key=value, such as optim.lr=0.02")
        settings = with_setting(settings, key.strip(), value.strip())
    return settings


def with_setting(settings: RunSettings, key: str, value: Any) -> RunSettings:
    """Return the settings with one key changed; text is converted to the key's type."""
    section, _, name = key.partition(".")
    component: Any = getattr(settings, section, None)
    if name not in getattr(component, "__dataclass_fields__", {}):
        known = [f"{s}.{n}" for s, values in settings.as_json().items() for n in values]
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
        raise InputError(f"{key}: no such setting; did you mean {near[0]}? The keys are {', '.join(known)}")
    if key == "net.classes":
        raise InputError("net.classes: follows from the data set's manifest and cannot be set")
    wanted = get_type_hints(type(component))[name]
    changed: Any = dataclasses.replace(component, **{name: _converted(key, value, wanted)})
    return dataclasses.replace(settings, **{section: changed})


def _converted(key: str, value: Any, wanted: Any) -> Any:
    """Convert text (or a TOML value) to a setting's type."""
    if get_origin(wanted) is Literal:
        if value in get_args(wanted):
            return value
        raise InputError(f"{key}={value}: must be one of {', '.join(map(str, get_args(wanted)))}")
    if wanted is bool:
        flag = {"true": True, "false": False}.get(str(value).lower())
        if flag is None:
            raise InputError(f"{key}={value}: must be true or false")
        return flag
    try:
        if wanted is int and isinstance(value, float):
            raise ValueError
        return wanted(value)
    except ValueError:
        kind = "a whole number" if wanted is int else "a number"
        raise InputError(f"{key}={value}: must be {kind}") from None
