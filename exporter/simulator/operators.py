"""What operators and the source host do to a simulated server."""

from collections.abc import Mapping

from exporter.simulator.builds import Outcome
from exporter.simulator.state import State


class Operators(State):
    """The acts of those who run the server; `World` has all acts."""

    def delete_repo(self, name: str) -> None:
        """The repo and its builds are gone."""
        self.drop_repo(name)

    def rename_repos(self, names: Mapping[str, str]) -> None:
        """Repos get other names, all in one moment: two may swap theirs."""
        with self.moment():
            moved = {new: self.repos.pop(old) for old, new in names.items()}
            for new, repo in moved.items():
                repo.name = new
                self.repos[new] = repo
                self.touch(repo)
            self._sorted = sorted(self.repos)

    def make_private(self, name: str, *, private: bool = True) -> None:
        """Only users with rights on it may read it from now on."""
        with self.moment():
            self.repos[name].private = private
            self.touch(self.repos[name])

    def deny(self, name: str, login: str = "adminuser") -> None:
        """The source host refuses the repo to this user (an admin can still read it by name)."""
        with self.moment():
            self.denied.setdefault(name, set()).add(login)
            self.edits += 1

    def allow(self, name: str, login: str = "adminuser") -> None:
        """Takes `deny` back."""
        with self.moment():
            logins = self.denied.get(name, set())
            logins.discard(login)
            if not logins:
                self.denied.pop(name, None)
            self.edits += 1

    def remove_build(self, repo: str, number: int) -> None:
        """The build's row is removed from the database; its number stays a hole."""
        with self.moment():
            self.take_out(self.repos[repo], number)

    def replace_by_empty(self) -> None:
        """The server is rebuilt with the same repos and no builds: numbers and ids begin at 1 again."""
        self.clear()

    def server_restart(self) -> None:
        """0.5: open builds become `error` without an end; 0.8: running ones stay so for ever."""
        with self.moment() as now:
            for place, build in self.open_builds(now):
                waits = build.started is None or now < build.started
                if self.traits.restart_loses == "open":
                    build.outcome, build.finished = Outcome.LOST, now
                    build.started = None if waits else build.started
                elif self.traits.restart_loses == "running" and not waits:
                    build.finished = None
                self.changed(place, build)
