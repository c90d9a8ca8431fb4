"""What ABF has in lists: searches by filters, and the single build list."""

from collections.abc import Iterable, Mapping
from urllib.parse import urlencode

from exporter.filters import BuildListFilter
from exporter.http import ServerError, Session
from exporter.servers.abf_wire import BuildList, Named, Row, Shown
from exporter.servers.wire import Shape

LISTS = "/api/v1/build_lists"
ROWS_AT_ONCE = 100
"""Rows of a page where codes are enough."""
MOST_PAGES = 1000

LIST = Shape(Row, "build_lists")
SHOWN = Shape(Shown)


class Search:
    """Asks one server for build lists, within what the configuration wants of it."""

    def __init__(self, session: Session, wanted: BuildListFilter) -> None:
        self.session = session
        self._wanted = wanted
        self._filters: dict[str, object] | None = None

    def show(self, i: int) -> BuildList:
        """The single build list; `ServerError.missing` when no list has it either."""
        try:
            answer = self.session.get(f"{LISTS}/{i}.json", "build")
        except ServerError as error:
            if error.status == 404 and not self.codes([i]):
                what = "answered 404: there is no such build list"
                raise self.session.fault("status", f"{LISTS}/{i}", what, status=404, missing=True) from None
            raise
        row = SHOWN.one(self.session, answer).build_list
        if row.id != i:
            raise self.session.fault("shape", answer.path, f"answered build list {row.id}", status=200)
        return row

    def codes(self, ids: Iterable[int]) -> dict[int, int]:
        """The codes of build lists, by id, visible or not; one that does not exist any more has none."""
        wanted = sorted(ids)
        found: dict[int, int] = {}
        for at in range(0, len(wanted), ROWS_AT_ONCE):
            part = {"id": wanted[at : at + ROWS_AT_ONCE]}
            rows, _ = self.page(LISTS, "open", part, 1, ROWS_AT_ONCE)
            found |= {row.id: row.status for row in rows if row.id in part["id"]}
        return found

    def search(self, operation: str, filters: Mapping[str, object]) -> list[Row]:
        """All rows that fit, the last changed first: pages until one is short."""
        found: dict[int, Row] = {}
        for page in range(1, MOST_PAGES + 1):
            before = len(found)
            rows, count = self.page(LISTS, operation, {**self.base(), **filters}, page, ROWS_AT_ONCE)
            for row in rows:
                found.setdefault(row.id, row)
            if count < ROWS_AT_ONCE or len(found) == before:
                break
        return list(found.values())

    def page(
        self, path: str, operation: str, filters: Mapping[str, object], page: int, size: int
    ) -> tuple[list[Row], int]:
        """One page of a search, and how many rows it had."""
        query: list[tuple[str, object]] = []
        for key, value in filters.items():
            query += (
                [(f"filter[{key}][]", i) for i in value]
                if isinstance(value, list)
                else [(f"filter[{key}]", value)]
            )
        query += [("page", page), ("per_page", size)]
        answer = self.session.get(f"{path}.json?{urlencode(query)}", operation)
        return LIST.counted(self.session, answer)

    def base(self) -> dict[str, object]:
        """The filters of every search, as the configuration has them."""
        if self._filters is None:
            filters: dict[str, object] = {"ownership": self._wanted.ownership}
            if self._wanted.project:
                filters["project_name"] = self._wanted.project
            if self._wanted.arch:
                filters["arch_id"] = self._id_of("architectures", "arches", self._wanted.arch)
            if self._wanted.platform:
                filters["save_to_platform_id"] = self._id_of("platforms", "platforms", self._wanted.platform)
            self._filters = filters
        return self._filters

    def _id_of(self, key: str, path: str, name: str) -> int:
        found: dict[str, int] = {}
        shape = Shape(Named, key)
        for page in range(1, MOST_PAGES + 1):
            before = len(found)
            answer = self.session.get(f"/api/v1/{path}.json?page={page}&per_page={ROWS_AT_ONCE}", "lookup")
            found |= {row.name: row.id for row in shape.rows(self.session, answer)}
            if name in found:
                return found[name]
            if len(found) == before:
                break
        what = f"has no {name}; it has {', '.join(sorted(found)[:50])}"
        raise self.session.fault("status", f"/api/v1/{path}.json", what, status=200)
