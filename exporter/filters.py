"""The mappings below one server in the configuration file: what of it is read."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool

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


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a repo is not watched."""

    setting: str
    """The key below `repos` that leaves it out."""
    pattern: str = ""
    """The pattern that it fits, where one leaves it out."""


class RepoFilter(Settings):
    """Which repos of a server are watched: those that every key here lets through."""

    include: Annotated[tuple[fields.RepoPattern, ...], fields.SOME] = ("*",)
    """Patterns of `owner/name` (`*`, `?`, `[abc]`; upper and lower case differ). A repo that fits one is
    watched."""
    exclude: tuple[fields.RepoPattern, ...] = ()
    """Patterns of `owner/name`. A repo that fits one is not watched, whatever `include` says."""
    owners: tuple[fields.Owner, ...] = ()
    """Names of owners; only their repos are watched. Empty: those of all owners."""
    active_only: StrictBool = True
    """Whether repos that are switched off at the server are left out. Where `false`, they are watched too;
    only Drone 1.x lists them with their builds."""

    def refuses(self, repo: str, *, active: bool = True) -> Refusal | None:
        """What leaves out the repo `owner/name`, which the server has switched on or not; None: nothing."""
        if self.active_only and not active:
            return Refusal("active_only")
        if self.owners and not any(repo.startswith(f"{owner}/") for owner in self.owners):
            return Refusal("owners")
        if not fields.fits(repo, self.include):
            return Refusal("include")
        pattern = next((pattern for pattern in self.exclude if fields.fits(repo, [pattern])), None)
        return None if pattern is None else Refusal("exclude", pattern)


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
