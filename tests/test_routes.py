"""Who is told, when, and what becomes of messages that waited."""

from datetime import datetime, time
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from process import configure

from exporter.config import ConfigError, load
from exporter.incidents import Change, State, What
from exporter.routes import Folded, Hold, Quiet, Route, Routes, Subject, Waiting, fold

PUSH = Subject("ci", "acme/web", "main", "push", "failure")
PULL = Subject("ci", "acme/web", "main", "pull_request", "failure")
ALL = ("chat", "mail")
BERLIN = ZoneInfo("Europe/Berlin")


def test_without_routes_every_target_is_told_of_all_but_pull_requests() -> None:
    routes = Routes(targets=ALL)
    assert routes.targets_for(PUSH) == ALL
    assert routes.targets_for(PULL) == ()
    assert routes.watches(PUSH)
    assert not routes.watches(PULL)


def test_the_first_route_that_fits_is_taken_and_continue_goes_on() -> None:
    routes = Routes(
        ALL,
        (
            Route(("mail",), repos=("acme/*",), branches=("release/*",)),
            Route(("chat",), servers=("ci",), failures=("error",), goes_on=True),
            Route(("mail", "chat"), repos=("acme/*",)),
            Route(("pager",)),
        ),
    )
    assert routes.targets_for(PUSH) == ("mail", "chat")
    assert routes.targets_for(Subject("ci", "acme/web", "release/1", "push", "error")) == ("mail",)
    assert routes.targets_for(Subject("ci", "acme/web", "main", "push", "error")) == ("chat", "mail")
    assert routes.targets_for(Subject("ci", "octo/x", "main", "cron", "timeout")) == ("pager",)


def test_pull_requests_are_watched_where_a_route_names_them() -> None:
    routes = Routes(
        ALL, (Route(("chat",), repos=("acme/*",), events=("pull_request",), failures=("error",)),)
    )
    assert routes.watches(PULL)
    assert not routes.watches(Subject("ci", "octo/x", "main", "pull_request", "failure"))
    assert routes.targets_for(PULL) == ()
    assert routes.targets_for(Subject("ci", "acme/web", "main", "pull_request", "error")) == ("chat",)
    assert routes.targets_for(PUSH) == ()


@pytest.mark.parametrize(
    ("what", "news", "told"),
    [
        (What.OPENED, True, ALL),
        (What.CHANGED, True, ALL),
        (What.CHANGED, False, ("mail",)),
        (What.RESOLVED, True, ("chat",)),
        (What.STALE, True, ("chat",)),
        (What.FLAPPING, True, ("chat", "mail")),
    ],
)
def test_who_is_told_depends_on_who_was_told(what: What, news: bool, told: tuple[str, ...]) -> None:
    state = State("push:main", told=("chat", "removed"))
    assert Routes(targets=ALL).told(Change(what, 1, news), state, PUSH) == told


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-03-02 21:59", None),
        ("2026-03-02 22:00", "2026-03-03 07:00"),
        ("2026-03-03 06:59", "2026-03-03 07:00"),
        ("2026-03-03 07:00", None),
        ("2026-03-28 23:00", "2026-03-29 07:00"),  # the clocks change in that night
        ("2026-03-07 23:00", None),  # a Saturday
        ("2026-03-08 03:00", None),
    ],
)
def test_quiet_hours_are_local_and_belong_to_the_day_that_they_begin_on(now: str, until: str | None) -> None:
    days = frozenset({0, 1, 2, 3, 4}) if now < "2026-03-20" else frozenset(range(7))
    routes = Routes(ALL, quiet=(Quiet(time(22), time(7), BERLIN, days, frozenset({"chat"})),))
    at = datetime.fromisoformat(now).replace(tzinfo=BERLIN).timestamp()
    end = datetime.fromisoformat(until).replace(tzinfo=BERLIN).timestamp() if until else 0.0
    assert routes.quiet_until("chat", PUSH, at) == end
    assert routes.quiet_until("mail", PUSH, at) == 0
    assert routes.quiet_until("chat", Subject("ci", "acme/web", "", "deployment", "failure"), at) == 0
    assert routes.quiet_until("chat", Subject("ci", "acme/web", "", "tag", "failure"), at) == 0


def test_quiet_hours_that_follow_each_other_are_one_and_those_without_end_end_once_a_week() -> None:
    friday = datetime.fromisoformat("2026-03-06 23:00").replace(tzinfo=BERLIN).timestamp()
    evening = Quiet(time(22), time(0), BERLIN, frozenset({4}))
    weekend = Quiet(time(0), time(0), BERLIN, frozenset({5, 6}))
    monday = datetime.fromisoformat("2026-03-09 00:00").replace(tzinfo=BERLIN).timestamp()
    assert Routes(ALL, quiet=(weekend, evening)).quiet_until("chat", PUSH, friday) == monday
    always = Routes(ALL, quiet=(Quiet(time(0), time(0), BERLIN),)).quiet_until("chat", PUSH, friday)
    assert friday + 7 * 86_400 <= always <= friday + 8 * 86_400


def test_quiet_hours_end_once_in_the_night_that_has_an_hour_twice() -> None:
    routes = Routes(ALL, quiet=(Quiet(time(22), time(2, 30), BERLIN),))
    first = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)
    assert routes.quiet_until("chat", PUSH, first.timestamp() - 900) == first.timestamp()
    assert routes.quiet_until("chat", PUSH, first.timestamp() + 2700) == 0


def rows(
    *kinds: str, thread: str = "a", first: int = 1, hold: str = Hold.UNREAD, since: float = 1e9
) -> list[Waiting]:
    return [Waiting(first + place, thread, kind, hold, since) for place, kind in enumerate(kinds)]


@pytest.mark.parametrize(
    ("kinds", "keep", "lines"),
    [
        (["opened"], [1], []),
        (["opened", "changed"], [1], []),
        (["changed", "changed"], [2], []),
        (["resolved"], [1], []),
        (["changed", "resolved"], [2], []),
        (["opened", "resolved"], [], [[1, 2]]),
        (["opened", "changed", "stale"], [], [[1, 2, 3]]),
        (["resolved", "opened"], [2], []),
        (["resolved", "opened", "resolved"], [3], []),
        (["opened", "resolved", "opened", "changed"], [3], []),
    ],
)
def test_what_was_held_back_is_told_as_its_net(
    kinds: list[str], keep: list[int], lines: list[list[int]]
) -> None:
    folded = fold(rows(*kinds), oldest=0.0)
    assert (folded.keep, folded.lines) == (keep, lines)
    members = {row_id for line in lines for row_id in line}
    assert set(folded.superseded) | set(keep) | members == {row.id for row in rows(*kinds)}
    assert set(folded.superseded.values()) <= set(keep)


def test_what_is_red_for_long_and_what_came_in_a_storm_are_lines_of_a_digest() -> None:
    old, new = rows("opened", since=10.0), rows("opened", thread="b", first=2, since=30.0)
    assert fold([*old, *new], oldest=20.0) == Folded(keep=[2], lines=[[1]])
    storm = rows("opened", thread="c", first=3, hold=Hold.STORM)
    assert fold([*new, *storm], oldest=20.0).lines == [[3]]


def test_after_an_outage_the_all_clear_alone_is_told_and_many_are_a_digest() -> None:
    both = rows("opened", "changed", "resolved", hold=Hold.NO)
    assert fold(both, oldest=0.0, held=False) == Folded(keep=[3], superseded={1: 3, 2: 3})
    many = [
        row for place in range(11) for row in rows("opened", thread=f"t{place}", first=place, hold=Hold.NO)
    ]
    assert fold(many[:10], oldest=0.0, held=False).lines == []
    assert fold(many, oldest=0.0, held=False).lines == [[place] for place in range(11)]


SERVER = {"name": "ci", "url": "http://ci.example.com", "token_env": "PATH_TO_NOTHING"}


def test_routes_come_from_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH_TO_NOTHING", "secret")
    monkeypatch.setenv("HOOK", "http://127.0.0.1:1/hook")
    notify = {
        "targets": [
            {"name": "team", "type": "webhook", "url_env": "HOOK"},
            {"name": "ops", "type": "slack", "url_env": "HOOK"},
        ],
        "routes": [{"match": {"event": ["deployment"]}, "to": ["ops"], "continue": True}, {"to": ["team"]}],
        "quiet_hours": [{"from": 1320, "to": "07:30", "timezone": "Europe/Berlin", "days": ["sat"]}],
        "people": {"ann": {"slack": "U1", "team": "@ann"}},
        "storm": 0,
        "max_age": "2h",
    }
    rules = load(configure(tmp_path, SERVER, notify=notify)).notify.rules
    assert rules.targets == ("team", "ops")
    assert rules.routes == (Route(("ops",), events=("deployment",), goes_on=True), Route(("team",)))
    assert rules.quiet == (Quiet(time(22), time(7, 30), BERLIN, frozenset({5})),)
    assert (rules.storm, rules.max_age) == (0, 7200.0)
    assert [rules.mention("ops", "ann"), rules.mention("team", "ann"), rules.mention("ops", "bob")] == [
        "U1",
        "@ann",
        "",
    ]


def test_what_is_wrong_with_routes_is_told_by_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH_TO_NOTHING", "secret")
    monkeypatch.setenv("HOOK", "http://127.0.0.1:1/hook")
    path = tmp_path / "config.yaml"
    path.write_text(
        """servers: [{name: ci, url: 'http://ci.example.com', token_env: PATH_TO_NOTHING}]
notify:
  targets:
    - {name: team, type: webhook, url_env: HOOK}
  routes:
    - to: [teem]
    - to: []
    - match: {repo: [web], event: [pushes], failure: [red]}
      to: [team]
    - {to: [team], contineu: true}
  quiet_hours:
    - {from: "25:00", to: 07:00, timezone: Berlin, days: [monday]}
  storm: -1
""",
        encoding="utf-8",
    )
    with pytest.raises(ConfigError) as refused:
        load(path)
    told = {line.split(":", 1)[1].replace(f"{path}", "") for line in refused.value.messages}
    lines = [message.removeprefix(f"{path}:") for message in refused.value.messages]
    assert [line.split(":")[0] for line in lines] == [
        "6",
        "7",
        "8",
        "8",
        "8",
        "10",
        "12",
        "12",
        "12",
        "13",
    ], told
    text = "\n".join(lines)
    assert "notify.routes[0].to[0]: is no target; did you mean team?" in text
    assert "notify.routes[1].to: must not be empty" in text
    assert "matched with owner/name" in text
    assert "did you mean continue?" in text
    assert "must be a time of day like 22:00" in text
    assert "must be a time zone like Europe/Berlin or UTC" in text
