"""A row of a report: what is to be measured, before it is."""

from dataclasses import dataclass, field
from typing import Any, Literal

Group = Literal["limit", "row", "peer", "part"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """Describe one row. `group`: `part` is measured only to tell the stages of another row apart.

    `limit`: name of the row that this one cannot beat; empty if it is none's. `by`: what the share of the limit
    compares, images or bytes. `alone`: all its rounds are run before the rows after it are started.
    """

    name: str
    title: str
    group: Group
    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    limit: str = ""
    by: Literal["images_per_s", "mb_per_s"] = "images_per_s"
    quick: bool = False
    alone: bool = False
