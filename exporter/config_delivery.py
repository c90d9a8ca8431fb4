"""The settings below `delivery`: which builds are deployments that the four numbers count."""

from typing import Annotated

from exporter import fields
from exporter.filters import Settings, Text


class DeployingBuilds(Settings):
    """Builds that deploy without being of the event `deployment`."""

    repo: fields.RepoPattern = "*"
    """Pattern of the repo, `owner/name`."""
    branch: Text | None = None
    """Pattern of the branch; without one, any."""
    step: Text | None = None
    """Pattern of the step that deploys: only builds that ran it are deployments, and its end is theirs.
    Without one, every build is."""
    environment: Text = "production"
    """What is deployed to."""


class DeliverySettings(Settings):
    """What the gauges `ci_delivery_*` count."""

    environments: Annotated[tuple[Text, ...], fields.SOME] = ("prod*",)
    """Patterns of the environments whose deployments count."""
    deployments: tuple[DeployingBuilds, ...] = ()
    """Builds that deploy without being of the event `deployment`: with rules for servers that have no
    promotion, or teams that deploy from a branch."""
