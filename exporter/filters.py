"""The mappings below one server in the configuration file: what of it is read."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from exporter import fields
from exporter.model import Event

Text = Annotated[str, Field(min_length=1)]


class Settings(BaseModel):
    """One mapping of the file."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


class RepoFilter(Settings):
    """Which repos of a server are watched."""

    include: Annotated[tuple[fields.RepoPattern, ...], fields.SOME] = ("*",)
    """Patterns of `owner/name` (`*`, `?`, `[abc]`; upper and lower case differ). A repo that fits one is
    watched."""
    exclude: tuple[fields.RepoPattern, ...] = ()
    """Patterns of `owner/name`. A repo that fits one is not watched, whatever `include` says."""


class Only(Settings):
    """Which builds count. The others are read and passed over: no metric, no message."""

    events: tuple[Event, ...] = ()
    """Of `push`, `pull_request`, `tag`, `cron`, `deployment`, `manual`; empty: all of them."""
    branches: fields.Patterns = ()
    """Patterns of branches; empty: all of them. The branch of a pull request is its target."""


class BuildListFilter(Settings):
    """Which build lists of an ABF server are asked for; what is left out here is never read."""

    ownership: Literal["everything", "owned", "related"] = "everything"
    """`everything` that the user may see; `owned`: what the user started; `related`: what belongs to the
    user, or to a group of the user."""
    project: Text | None = None
    """Part of a project's name, without its owner; upper and lower case differ."""
    platform: Text | None = None
    """Name of the platform that packages are saved to, like `rosa2023.1`."""
    arch: Text | None = None
    """Name of an architecture, like `x86_64`."""
