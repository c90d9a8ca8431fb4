"""The columns that several tables have."""

from boards.panels import repo_page
from boards.style import STATUS_WORDS, SUCCESS, Steps
from boards.tables import Column

REPO = Column(
    name="Repo",
    label="repo",
    link=repo_page("__data.fields"),
)
SERVER = Column(name="Server", label="server", width=110)
SERVER_UNSEEN = Column(name="server", label="server", hidden=True)
"""For tables of one repo, whose rows are all of one server."""
BRANCH = Column(name="Branch", label="branch")
EVENT = Column(name="Event", label="event", width=110)
BUILD_URL = Column(name="build_url", label="build_url", hidden=True)
"""Unseen; what the links of build numbers begin with."""


def build(expr: str, name: str = "Build") -> Column:
    """A build's number, which leads to its page; the query has the label `build_url`."""
    link = "${__data.fields.build_url}${__value.raw}"
    return Column(name=name, expr=expr, width=90, decimals=0, link=link)


def result(expr: str) -> Column:
    return Column(name="Result", expr=expr, width=100, words=STATUS_WORDS)


def number(name: str, expr: str, steps: Steps | None = None, width: int = 80) -> Column:
    return Column(name=name, expr=expr, width=width, decimals=0, steps=steps)


def seconds(name: str, expr: str, steps: Steps | None = None, width: int = 100) -> Column:
    return Column(name=name, expr=expr, unit="s", width=width, decimals=1, steps=steps)


def ago(name: str, expr: str, width: int = 130) -> Column:
    """A time in milliseconds, told as how long ago it was."""
    return Column(name=name, expr=expr, unit="dateTimeFromNow", width=width)


def success(expr: str) -> Column:
    return Column(name="Success", expr=expr, unit="percentunit", width=90, decimals=0, steps=SUCCESS)
