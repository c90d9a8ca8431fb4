"""Tables: a table is its columns, in the order in which they are shown."""

from collections.abc import Sequence
from dataclasses import dataclass

from boards.panels import Panel, Query, fixed
from boards.style import PLAIN, Json, Steps, by_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table: a label of the results, or with `expr` the values of a query."""

    name: str
    """As shown; of a label that is hidden, the label itself."""
    label: str = ""
    expr: str = ""
    unit: str = ""
    width: int = 0
    """Pixels; 0 takes its part of what is left."""
    decimals: int | None = None
    steps: Steps | None = None
    words: Sequence[Json] = ()
    link: str = ""
    hidden: bool = False

    def override(self) -> Json:
        """How its cells look; empty for a plain one."""
        look: dict[str, object] = {}
        if self.unit:
            look["unit"] = self.unit
        if self.decimals is not None:
            look["decimals"] = self.decimals
        if self.width:
            look["custom__width"] = self.width
        if self.words:
            look["mappings"] = list(self.words)
            look["custom__cellOptions"] = {"type": "color-background", "mode": "basic"}
        if self.steps:
            look["thresholds"] = self.steps.json()
            look["color"] = {"mode": "thresholds"}
            plain = self.steps.first == PLAIN
            look["custom__cellOptions"] = (
                {"type": "color-text"} if plain else {"type": "color-background", "mode": "basic"}
            )
        if self.link:
            look["links"] = [{"title": self.name, "url": self.link, "targetBlank": self.link[0] != "/"}]
        if self.hidden:
            look["custom__hidden"] = True  # up to Grafana 12
            look["custom__hideFrom__viz"] = True  # later ones
        return by_name(self.name, **look) if look else {}


def table(
    title: str,
    description: str,
    *columns: Column,
    sort: str,
    width: int = 24,
    height: int = 10,
    none: str = "–",
    ascending: bool = False,
) -> Panel:
    """Rows merged from the instant results of the columns' queries by the labels that these share."""
    asked = [column for column in columns if column.expr]
    values = ["Value"] if len(asked) == 1 else [f"Value #{chr(ord('A') + n)}" for n in range(len(asked))]
    named = dict(zip((column.name for column in asked), values, strict=True))
    fields = [named.get(column.name, column.label) for column in columns]
    return Panel(
        type="table",
        title=title,
        description=description,
        width=width,
        height=height,
        queries=tuple(Query(column.expr) for column in asked),
        unit="none",
        none=none,
        form="table",
        instant=True,
        defaults={
            "color": fixed(PLAIN),
            "custom": {"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False, "minWidth": 80},
        },
        overrides=[override for column in columns if (override := column.override())],
        options={
            "frameIndex": 0,
            "showHeader": True,
            "cellHeight": "sm",
            "sortBy": [{"displayName": sort, "desc": not ascending}],
        },
        transformations=[
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": {"Time": True},
                    "indexByName": {name: place for place, name in enumerate(fields)},
                    "renameByName": {
                        name: column.name for name, column in zip(fields, columns, strict=True) if name
                    },
                },
            },
        ],
    )
