"""Repos that have another name by now, or an old one that another had: found by the server's own id of
them, believed by their builds.

An id alone proves nothing: a server that is rebuilt gives out its ids again. A repo is the one that was
known by another name where one of the newest builds that were recorded of it is still there, with the
same number, created in the same second.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from exporter.gaps import GapReader
from exporter.http import ServerError
from exporter.ledger import Ledger, watched
from exporter.ledger.watched import RepoState
from exporter.model import Repo
from exporter.servers import Server

BUILDS_COMPARED = 3
"""The newest one may have been removed, or its number given out again (Woodpecker)."""


def suspects(known: Iterable[RepoState], listed: Sequence[Repo]) -> Iterator[tuple[Repo, RepoState]]:
    """Pairs of a listed repo and a known one of the same id and another name, the latest known first."""
    there = {(repo.name, repo.id) for repo in listed}
    by_uid: dict[str, list[RepoState]] = {}
    for state in sorted(known, key=lambda state: -state.id):
        if state.uid and (state.name, state.uid) not in there:
            by_uid.setdefault(state.uid, []).append(state)
    for repo in listed:
        for state in by_uid.get(repo.id, ()):
            yield repo, state


def is_same(server: Server, gaps: GapReader, ledger: Ledger, repo: Repo, known: RepoState) -> bool:
    """True when the builds recorded of `known` are those of the listed repo.

    Raises `ServerError` where the server does not tell.
    """
    with ledger.reading() as conn:
        created = watched.newest_created(conn, known, BUILDS_COMPARED)
    if repo.newest is not None and created.get(repo.newest.number) == repo.newest.created:
        return True
    state = replace(known, name=repo.name, highest=repo.counter)
    for number, at in created.items():
        if server.limits.lists_repos and number > repo.counter:
            continue
        try:
            found = server.build(repo.name, number)
        except ServerError as error:
            if not error.missing:
                raise
            row = gaps.find_row(state, number)  # a refusal alone may be the source host's
            if row is None:
                continue
            found = row
        if found.created == at:
            return True
    return False
