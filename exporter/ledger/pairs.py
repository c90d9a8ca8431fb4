"""What an end counts together with other ends of its commit: flaky commits and restarts. No I/O."""

from collections.abc import Iterable, Sequence

from exporter.ledger.counts import Addition
from exporter.ledger.names import Names
from exporter.ledger.runs import Run
from exporter.model import Event


def pair_additions(names: Names, same: Sequence[Run], run: Run) -> Iterable[tuple[Addition, Run]]:
    """What `run` adds together with other ends of its commit, whichever of them came first."""
    if not same or run.event == Event.DEPLOYMENT:
        return
    both = [*same, run]
    before, after = _flaky_ends(same), _flaky_ends(both)
    for branch in after.keys() - before.keys():
        flaky = after[branch]
        yield Addition("ci_build_flaky_total", (names.branch(branch, flaky.when_ended),), 1), flaky
    known = {again.key for again in _restarts(same, run)}
    for again in _restarts(both, run):
        if again.key not in known:
            yield Addition("ci_build_restarts_total", (), 1), again


def _flaky_ends(runs: Sequence[Run]) -> dict[str, Run]:
    """By branch the first counted good end that follows a bad one of the same commit and ref class."""
    bad: dict[str, Run] = {}
    found: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: run.key):
        if run.event == Event.DEPLOYMENT:
            continue
        if run.bad:
            bad.setdefault(run.ref_class, run)
        elif run.good and run.counted and run.ref_class in bad:
            found.setdefault(run.branch, run)
    return found


def _restarts(runs: Sequence[Run], of: Run) -> list[Run]:
    """The counted runs that a person started after another of the same commit, event and ref.

    Drone 1.x says of a restart no more than that (contract drone-1.x, "Restart").
    """
    same = [run for run in runs if (run.event, run.ref) == (of.event, of.ref)]
    first = min((run.key for run in same), default=None)
    return [r for r in same if r.by_hand and r.counted and not r.restarted and r.key != first]
