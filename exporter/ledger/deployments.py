"""The deployments that the ledger knows of, by repo."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import Connection, Select, and_, func, select

from exporter.config_delivery import DeliverySettings, DeployingBuilds
from exporter.dora import Deployment
from exporter.fields import fits
from exporter.ledger.names import Policy
from exporter.ledger.schema import SETTLED, builds, repos, steps
from exporter.ledger.sql import chunks
from exporter.model import Event, Status

Deployments: TypeAlias = dict[tuple[str, str], list[Deployment]]
"""By server and repo."""
_BAD = [status.value for status in Status if status.bad]
_COUNTED = [Status.SUCCESS.value, *_BAD]


class _End(NamedTuple):
    """A build that may have been a deployment, with the step that may have made it one."""

    repo_id: int
    server: str
    repo: str
    generation: int
    number: int
    run: int
    event: str
    branch: str
    commit: str
    environment: str
    finished: int
    status: int
    step: str = ""


def deployments(
    conn: Connection, settings: DeliverySettings, policies: Mapping[str, Policy], since: int
) -> Deployments:
    """The counted deployments that ended well or badly after `since` (Unix seconds).

    Left out are those of servers without a policy, and of repos that are gone or not watched.
    """
    ends: dict[tuple[int, ...], _End] = {}
    for end, environment in _ends(conn, settings, since):
        policy = policies.get(end.server)
        if policy is None or not policy.counts(end.event, end.branch):
            continue
        key = end.repo_id, end.generation, end.number, end.run
        known = ends.get(key)
        if known is None or known.status not in _BAD:  # where one of several steps failed, it failed
            ends[key] = end._replace(environment=environment)
    committed = _first_builds(conn, list(ends.values()))
    found: Deployments = {}
    for end in ends.values():
        first = committed.get((end.repo_id, end.commit), 0)
        found.setdefault((end.server, end.repo), []).append(
            Deployment(end.environment, end.finished, end.status not in _BAD, first)
        )
    return found


def _ends(conn: Connection, settings: DeliverySettings, since: int) -> Iterator[tuple[_End, str]]:
    """Candidates that fit, each with the environment that was deployed to."""
    promoted = _select(since).where(builds.c.event == Event.DEPLOYMENT, builds.c.status.in_(_COUNTED))
    for row in conn.execute(promoted):
        end = _End(*row)
        if fits(end.environment, settings.environments):
            yield end, end.environment
    for rule in settings.deployments:
        if fits(rule.environment, settings.environments):
            for row in conn.execute(_of_rule(rule, since)):
                end = _End(*row)
                if _is_deploying(end, rule):
                    yield end, rule.environment


def _select(since: int, *more: Any) -> Select[Any]:
    """Builds that ended since; an end without a time was when it was recorded."""
    finished = func.coalesce(func.nullif(builds.c.finished, 0), builds.c.recorded)
    run = (builds.c.repo_id, repos.c.server, repos.c.name, builds.c.generation, builds.c.number, builds.c.run)
    about = (builds.c.event, builds.c.branch, builds.c.commit, builds.c.environment)
    return (
        select(*run, *about, finished, *(more or (builds.c.status,)))
        .join(repos, repos.c.id == builds.c.repo_id)
        .where(repos.c.watched, ~repos.c.gone, builds.c.state >= SETTLED, finished > since)
    )


def _of_rule(rule: DeployingBuilds, since: int) -> Select[Any]:
    """Builds that fit a rule, and some that do not: LIKE knows less than the rule's patterns."""
    elsewhere = (Event.DEPLOYMENT, Event.PULL_REQUEST)
    if rule.step is None:
        found = _select(since).where(builds.c.status.in_(_COUNTED))
    else:
        same_run = (
            getattr(steps.c, key) == getattr(builds.c, key)
            for key in ("repo_id", "generation", "number", "run")
        )
        found = (
            _select(since, steps.c.status, steps.c.name)
            .join(steps, and_(*same_run))
            .where(steps.c.status.in_(_COUNTED), _like(steps.c.name, rule.step))
        )
    if rule.branch is not None:
        found = found.where(_like(builds.c.branch, rule.branch))
    return found.where(builds.c.event.not_in(elsewhere), _like(repos.c.name, rule.repo))


def _like(column: Any, pattern: str) -> Any:
    """The column is like the pattern, as far as SQL can tell."""
    parts = re.findall(r"\*|\?|\[[^]]+\]|[^*?[]+|\[", pattern)
    escaped = {"*": "%", "?": "_"}
    return column.like(
        "".join(
            escaped.get(part) or ("_" if part.startswith("[") else re.sub(r"([\\%_])", r"\\\1", part))
            for part in parts
        ),
        escape="\\",
    )


def _is_deploying(end: _End, rule: DeployingBuilds) -> bool:
    return (
        fits(end.repo, (rule.repo,))
        and (rule.branch is None or fits(end.branch, (rule.branch,)))
        and (rule.step is None or fits(end.step, (rule.step,)))
    )


def _first_builds(conn: Connection, ends: list[_End]) -> dict[tuple[int, str], int]:
    """When the first build of each end's commit was created, by repo and commit."""
    commits: dict[int, set[str]] = {}
    for end in ends:
        if end.commit:
            commits.setdefault(end.repo_id, set()).add(end.commit)
    found: dict[tuple[int, str], int] = {}
    for repo_id, of_repo in commits.items():
        for chunk in chunks(sorted(of_repo)):
            first = (
                select(builds.c.commit, func.min(builds.c.created))
                .where(builds.c.repo_id == repo_id, builds.c.commit.in_(chunk), builds.c.created > 0)
                .group_by(builds.c.commit)
            )
            found |= {(repo_id, commit): created for commit, created in conn.execute(first)}
    return found
