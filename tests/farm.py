"""A build farm that answers searches and single build lists as ABF does (its contract), from memory."""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from replay import Replay, recording

JSON = {"Content-Type": "application/json; charset=utf-8"}
NOT_FOUND = {"status": 404, "message": "Error 404. Resource not found!"}


@dataclass
class Farm:
    """Build lists by id, as `show` has them; `put` changes one now."""

    replay: Replay
    lists: dict[int, dict[str, Any]] = field(default_factory=dict)
    hidden: set[int] = field(default_factory=set)
    broken: dict[int, Any] = field(default_factory=dict)
    """Answers in the place of single build lists."""
    searches: list[dict[str, list[str]]] = field(default_factory=list)
    shown: list[int] = field(default_factory=list)
    order: dict[int, float] = field(default_factory=dict)
    """When each changed, finer than `show` tells."""

    def __post_init__(self) -> None:
        self.template = recording("abf", "rosa-show-success")["body"]["build_list"]
        self.replay.live = self.answer

    def put(self, number: int, status: int, *, at: float | None = None, project: str = "import/hello",
            quietly: bool = False, **changes: object) -> None:  # fmt: skip
        """Gives a build list a code (and other values) at a moment, now if none is said."""
        now = self.replay.now if at is None else at
        old = self.lists.get(number)
        row = deepcopy(old or self.template | {"id": number, "created_at": int(now), "duration": None})
        row |= {"status": status} | changes
        row["project"] |= {"id": {"import/hello": 1}.get(project, 2 + len(project)), "fullname": project}
        if not (quietly and old):
            row["updated_at"] = int(now)
            self.order[number] = now
        self.lists[number] = row

    def answer(self, line: str) -> Any:
        parts = urlsplit(line)
        path, query = parts.path, parse_qs(parts.query)
        if path == "/api/v1/user.json":
            return {"status": 200, "headers": JSON, "body": {"user": {"id": 1, "uname": "ada", "name": ""}}}
        if path.endswith("build_lists.json"):
            project = path.split("/")[4] if "/projects/" in path else ""
            return {"status": 200, "headers": JSON, "body": self._search(query, project)}
        if path.startswith("/api/v1/build_lists/"):
            return self._show(int(path.removesuffix(".json").rpartition("/")[2]))
        return None

    def _search(self, query: dict[str, list[str]], project: str) -> object:
        self.searches.append(query)
        found = list(self.lists.values())
        if ids := query.get("filter[id][]"):
            found = [row for row in found if str(row["id"]) in ids]
        else:
            found = [row for row in found if row["id"] not in self.hidden]
            since = float(query.get("filter[updated_at_start]", ["0"])[0])
            found = [row for row in found if self.order[row["id"]] >= since]
            if status := query.get("filter[status]"):
                found = [row for row in found if str(row["status"]) == status[0]]
            if name := query.get("filter[project_name]"):
                found = [row for row in found if name[0] in row["project"]["fullname"].partition("/")[2]]
            if project:
                found = [row for row in found if str(row["project"]["id"]) == project]
        found.sort(key=lambda row: self.order[row["id"]], reverse=True)
        size = min(int(query.get("per_page", ["20"])[0]), 100)
        start = (int(query.get("page", ["1"])[0]) - 1) * size
        rows = [
            {"id": row["id"], "status": row["status"], "project_id": row["project"]["id"],
             "url": f"/api/v1/build_lists/{row['id']}"}
            for row in found[start : start + size]
        ]  # fmt: skip
        return {"build_lists": rows, "url": "/api/v1/build_lists"}

    def _show(self, number: int) -> Any:
        self.shown.append(number)
        if number in self.broken:
            return self.broken[number]
        if number in self.hidden:
            return {"status": 403, "headers": JSON, "body": {"message": "Access violation to this page!"}}
        row = self.lists.get(number)
        if row is None:
            return {"status": 404, "headers": JSON, "body": NOT_FOUND}
        return {"status": 200, "headers": JSON, "body": {"build_list": row}}
