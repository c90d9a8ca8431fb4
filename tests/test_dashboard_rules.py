"""The dashboards keep every rule that can be read from them, and each rule finds what breaks it."""

import copy
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dashboard_rules as rules
import dashboards
import pytest
import yaml
from dashboards import Json, boards, labels_of
from promql import read

from exporter.colours import STATUS_COLOURS
from exporter.model import Status

ROOT = Path(__file__).parent.parent
GRAFANA = ROOT / "grafana"
BOARDS = {board["uid"]: board for board in boards()}
Mutation = Callable[[Json], object]


def panel(board: Json, title: str) -> Json:
    (found,) = (one for one in board["panels"] if one["title"] == title)
    return dict(found)


def target(board: Json, title: str) -> Json:
    """The first query of a panel, to be changed in place."""
    first: Json = panel(board, title)["targets"][0]
    return first


def look(board: Json, title: str, column: str) -> list[Json]:
    """The properties of a column or series, to be changed in place."""
    overrides = panel(board, title)["fieldConfig"]["overrides"]
    (found,) = (one["properties"] for one in overrides if one["matcher"]["options"] == column)
    return list(found)


def organized(board: Json, title: str) -> Json:
    options: Json = panel(board, title)["transformations"][1]["options"]
    return options


def defaults(board: Json, title: str) -> Json:
    options: Json = panel(board, title)["fieldConfig"]["defaults"]
    return options


def replace(title: str, old: str, new: str, key: str = "expr") -> Mutation:
    """Changes a panel's first query or its legend."""

    def mutate(board: Json) -> None:
        query = target(board, title)
        assert old in query[key], query[key]
        query[key] = query[key].replace(old, new)

    return mutate


def link(title: str, old: str, new: str) -> Mutation:
    """Changes the links of a panel or of its columns."""

    def mutate(board: Json) -> None:
        config = panel(board, title)["fieldConfig"]
        links = list(config["defaults"].get("links", []))
        links += [
            u for o in config["overrides"] for p in o["properties"] if p["id"] == "links" for u in p["value"]
        ]
        assert any(old in one["url"] for one in links)
        for one in links:
            one["url"] = one["url"].replace(old, new)

    return mutate


def test_the_files_are_what_the_generator_writes() -> None:
    command = [sys.executable, str(GRAFANA / "build.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_stale_missing_and_left_over_files_are_named_and_mended(tmp_path: Path) -> None:
    grafana = tmp_path / "grafana"
    shutil.copytree(GRAFANA, grafana)
    made = grafana / "provisioning/dashboards/ci"
    (made / "ci-fleet.json").write_text("{}")
    (made / "ci-queue.json").unlink()
    (made / "ci-old.json").write_text("{}")

    def build(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(grafana / "build.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    checked = build("--check")
    assert checked.returncode == 1
    stale = re.findall(r"^(\S+) is stale", checked.stderr, re.MULTILINE)
    assert stale == ["ci-fleet.json", "ci-old.json", "ci-queue.json"]
    assert build().returncode == 0
    assert build("--check").returncode == 0
    assert {path.name for path in made.iterdir()} == {f"{uid}.json" for uid in BOARDS}


def test_the_six_dashboards_are_there() -> None:
    wanted = ("ci-delivery", "ci-exporter", "ci-fleet", "ci-queue", "ci-repository", "ci-steps")
    assert tuple(sorted(BOARDS)) == wanted
    assert {board["schemaVersion"] for board in BOARDS.values()} == {39}


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("uid", BOARDS)
def test_dashboards_keep_the_rules(uid: str, rule: Callable[[Json], Iterator[str]]) -> None:
    assert list(rule(BOARDS[uid])) == []


@pytest.mark.parametrize("uid", BOARDS)
def test_links_lead_somewhere(uid: str) -> None:
    assert list(rules.links_lead_somewhere(BOARDS[uid], list(BOARDS.values()))) == []


def test_every_family_is_charted() -> None:
    assert list(rules.everything_is_charted(list(BOARDS.values()))) == []


def test_the_page_about_them_says_what_each_answers() -> None:
    page = (ROOT / "docs/dashboards.md").read_text(encoding="utf-8")
    for uid, board in BOARDS.items():
        question = re.split("[.:]", board["description"])[0]
        assert f"| {board['title']} (`{uid}`) | {question[0].lower()}{question[1:]} |" in page


def test_every_status_has_a_colour() -> None:
    assert set(STATUS_COLOURS) == set(Status)
    assert len(set(STATUS_COLOURS.values())) == len(Status)


@pytest.mark.parametrize("name", ["datasources/prometheus.yaml", "dashboards/ci.yaml"])
def test_provisioning_files_are_what_grafana_reads(name: str) -> None:
    file = yaml.safe_load((GRAFANA / "provisioning" / name).read_text(encoding="utf-8"))
    assert file["apiVersion"] == 1
    (entry,) = file.get("datasources") or file["providers"]
    if "options" in entry:
        place = Path(entry["options"]["path"]).relative_to("/etc/grafana/provisioning")
        assert set((GRAFANA / "provisioning" / place).iterdir()) == set(dashboards.DIRECTORY.iterdir())
        assert entry["type"] == "file"
    else:
        assert (entry["type"], entry["access"], entry["isDefault"]) == ("prometheus", "proxy", True)


SUCCESS = {"id": "color", "value": {"mode": "fixed", "fixedColor": "red"}}
FAULTS: tuple[tuple[str, str, Mutation, str], ...] = (
    ("queries_are_sound", "ci-fleet", replace("Builds", "ci_builds_total", "ci_build_total"), "no metric"),
    ("queries_are_sound", "ci-fleet", replace("Duration", "seconds_bucket", "seconds"), "no metric"),
    (
        "queries_are_sound",
        "ci-fleet",
        replace("Builds", "event=~", "cause=~"),
        "matcher of ci_builds_total names",
    ),
    (
        "queries_are_sound",
        "ci-fleet",
        replace("Builds by result", "by (status)", "by (state)"),
        "by or without",
    ),
    (
        "queries_are_sound",
        "ci-fleet",
        replace("Builds by result", "{{status}}", "{{repo}}", "legendFormat"),
        "leg",
    ),
    (
        "queries_are_sound",
        "ci-fleet",
        replace("Open incidents", "on (server, repo)", "on (server, job)"),
        "on or",
    ),
    ("queries_are_sound", "ci-fleet", replace("Open incidents", "(build_url)", "(build_uri)"), "group_left"),
    ("queries_are_sound", "ci-fleet", replace("Builds", "$repo", "$repos"), "no variable $repos"),
    ("queries_are_sound", "ci-fleet", replace("Builds", "$repo", "$branch"), "no variable $branch"),
    ("queries_are_sound", "ci-fleet", replace("Builds", 'repo=~"$', 'repo="$'), "matched by ="),
    ("queries_are_sound", "ci-fleet", replace("Builds", 'repo=~"$', 'repo!="$'), "matched by !="),
    ("queries_are_sound", "ci-fleet", replace("Builds", "round(", "("), "not rounded"),
    ("queries_are_sound", "ci-fleet", replace("Builds", "$__range", "$__interval"), "no interval"),
    ("queries_are_sound", "ci-fleet", replace("Duration", "$__rate_interval", "5m"), "rate over 5m"),
    (
        "queries_are_sound",
        "ci-fleet",
        lambda b: b["annotations"]["list"][0].update(titleFormat="{{step}}"),
        "the legend names step",
    ),
    (
        "queries_are_sound",
        "ci-fleet",
        lambda b: b["templating"]["list"][1]["query"].update(query="label_values(ci_server_up, repo)"),
        "ci_server_up has no label repo",
    ),
    ("variables_are_regular", "ci-fleet", lambda b: b["templating"]["list"].pop(0), "not the data source"),
    (
        "variables_are_regular",
        "ci-fleet",
        lambda b: b["templating"]["list"][0].update(label="DS"),
        "not the data",
    ),
    (
        "variables_are_regular",
        "ci-fleet",
        lambda b: b["templating"]["list"][2].update(multi=False),
        "repo: multi",
    ),
    (
        "variables_are_regular",
        "ci-fleet",
        lambda b: b["templating"]["list"][2].update(allValue=""),
        "allValue",
    ),
    ("variables_are_regular", "ci-fleet", lambda b: b["templating"]["list"][2].update(refresh=1), "refresh"),
    ("variables_are_regular", "ci-fleet", lambda b: b.update(editable=True), "editable"),
    (
        "variables_are_regular",
        "ci-fleet",
        lambda b: target(b, "Builds").update(datasource={"type": "prometheus", "uid": "mine"}),
        "other than the chosen",
    ),
    ("panels_are_described", "ci-fleet", lambda b: b["panels"][0].update(title=""), "no title"),
    ("panels_are_described", "ci-fleet", lambda b: b["panels"][0].update(description=""), "no description"),
    ("panels_are_described", "ci-fleet", lambda b: defaults(b, "Builds").pop("unit"), "no unit"),
    ("panels_are_described", "ci-fleet", lambda b: defaults(b, "Builds").pop("noValue"), "no noValue"),
    ("panels_are_described", "ci-fleet", replace("Builds", "round(", "vector(0) or round("), "a 0 that"),
    ("layout_is_sound", "ci-fleet", lambda b: b["panels"][1].update(id=1), "id 1 twice"),
    ("layout_is_sound", "ci-fleet", lambda b: b["panels"][1].update(title="Builds"), "title Builds twice"),
    (
        "layout_is_sound",
        "ci-fleet",
        lambda b: b["panels"][0]["gridPos"].update(w=5),
        "overlaps Broken branches",
    ),
    (
        "layout_is_sound",
        "ci-fleet",
        lambda b: b["panels"][0]["gridPos"].update(h=5),
        "overlaps Open incidents",
    ),
    ("layout_is_sound", "ci-fleet", lambda b: b["panels"][5]["gridPos"].update(w=5), "outside of the page"),
    ("links_lead_somewhere", "ci-fleet", lambda b: defaults(b, "Builds").pop("links"), "leads nowhere"),
    (
        "links_lead_somewhere",
        "ci-fleet",
        link("Repos", "fields.repo", "fields.project"),
        "link names project",
    ),
    (
        "links_lead_somewhere",
        "ci-fleet",
        link("Most failures", "labels.repo", "labels.job"),
        "link names job",
    ),
    ("links_lead_somewhere", "ci-fleet", link("Open incidents", "build_url", "build_uri"), "names build_uri"),
    (
        "links_lead_somewhere",
        "ci-fleet",
        link("Repos", "/d/ci-repository", "/d/ci-repo"),
        "leads to /d/ci-repo",
    ),
    ("links_lead_somewhere", "ci-fleet", link("Repos", "var-repo", "var-project"), "sets project"),
    ("links_lead_somewhere", "ci-fleet", link("Waiting", "${repo:", "${branch:"), "passes branch"),
    ("links_lead_somewhere", "ci-fleet", link("Builds", "${__url_time_range}", ""), "loses the time range"),
    ("links_lead_somewhere", "ci-fleet", link("Builds", "viewPanel=", "viewPanel=9"), "leads to panel"),
    ("links_lead_somewhere", "ci-fleet", lambda b: b.update(links=[]), "no list of the other"),
    ("links_lead_somewhere", "ci-fleet", lambda b: b.update(tags=[]), "is in no list"),
    (
        "tables_read_well",
        "ci-repository",
        lambda b: organized(b, "Last builds")["indexByName"].update(repo=5.5),
        "order of columns: Branch",
    ),
    (
        "tables_read_well",
        "ci-fleet",
        lambda b: organized(b, "Repos")["indexByName"].update(server=0.5),
        "order of columns: Repo, Server",
    ),
    (
        "tables_read_well",
        "ci-fleet",
        lambda b: organized(b, "Repos")["indexByName"].pop("server"),
        "a place, or",
    ),
    (
        "tables_read_well",
        "ci-fleet",
        lambda b: organized(b, "Repos")["excludeByName"].clear(),
        "shows the time",
    ),
    (
        "tables_read_well",
        "ci-fleet",
        lambda b: look(b, "Open incidents", "build_url")[1].update(value=False),
        "hidden in some versions",
    ),
    ("tables_read_well", "ci-fleet", lambda b: panel(b, "Repos")["gridPos"].update(w=8), "pixels wide"),
    (
        "tables_read_well",
        "ci-repository",
        lambda b: [
            p["value"].update(type="auto") for p in look(b, "Last builds", "Result") if "cell" in p["id"]
        ],
        "Result has no colour",
    ),
    (
        "tables_read_well",
        "ci-fleet",
        lambda b: [p["value"].update(type="auto") for p in look(b, "Repos", "Success") if "cell" in p["id"]],
        "Success has no colour",
    ),
    (
        "graphs_read_well",
        "ci-fleet",
        lambda b: defaults(b, "Default branches over time")["color"].update(mode="thresholds"),
        "merged states in one colour",
    ),
    (
        "graphs_read_well",
        "ci-fleet",
        lambda b: panel(b, "Default branches over time")["options"].update(showValue="never"),
        "without their words",
    ),
    (
        "graphs_read_well",
        "ci-fleet",
        replace("Default branches over time", "topk(20,", "topk(200,"),
        "any number",
    ),
    ("graphs_read_well", "ci-fleet", replace("Success rate by server", "bottomk(10,", "abs("), "any number"),
    (
        "graphs_read_well",
        "ci-fleet",
        lambda b: panel(b, "Running and waiting")["options"]["legend"].update(displayMode="table"),
        "does not fit",
    ),
    (
        "graphs_read_well",
        "ci-steps",
        lambda b: panel(b, "Duration")["options"]["legend"].update(placement="bottom"),
        "does not fit",
    ),
    (
        "graphs_read_well",
        "ci-fleet",
        lambda b: defaults(b, "Running and waiting")["custom"].update(fillOpacity=20),
        "cover each other",
    ),
    (
        "graphs_read_well",
        "ci-fleet",
        lambda b: defaults(b, "Duration")["custom"]["stacking"].update(mode="normal"),
        "stacked lines",
    ),
    (
        "graphs_read_well",
        "ci-fleet",
        lambda b: defaults(b, "Duration")["color"].update(mode="palette-classic"),
        "colours by order",
    ),
    (
        "graphs_read_well",
        "ci-exporter",
        lambda b: panel(b, "Notifications by outcome")["fieldConfig"]["overrides"].pop(),
        "expired has no colour",
    ),
    (
        "colours_have_meaning",
        "ci-exporter",
        lambda b: look(b, "Notifications by outcome", "delivered")[0].update(SUCCESS),
        "delivered is red",
    ),
    (
        "colours_have_meaning",
        "ci-repository",
        lambda b: defaults(b, "Last result")["mappings"][0]["options"]["2"].update(color="#37872d"),
        "failure is #37872d",
    ),
    (
        "colours_have_meaning",
        "ci-fleet",
        lambda b: b["annotations"]["list"][0].update(iconColor="purple"),
        "Failures is purple",
    ),
    (
        "annotations_are_quiet",
        "ci-fleet",
        lambda b: b["annotations"]["list"][0].update(enable=True),
        "marked unasked",
    ),
    (
        "annotations_are_quiet",
        "ci-repository",
        lambda b: b["annotations"]["list"][0].update(
            expr=BOARDS["ci-fleet"]["annotations"]["list"][0]["expr"]
        ),
        "marked unasked",
    ),
    (
        "annotations_are_quiet",
        "ci-fleet",
        lambda b: b["annotations"]["list"][1]["target"].update(expr="ci_server_up"),
        "asks two things",
    ),
    (
        "annotations_are_quiet",
        "ci-fleet",
        lambda b: b["annotations"]["list"][1].update(enable=False),
        "not marked",
    ),
)


@pytest.mark.parametrize(
    ("rule", "uid", "mutate", "words"), FAULTS, ids=[f"{rule}: {words}" for rule, _, _, words in FAULTS]
)
def test_a_planted_fault_is_found(rule: str, uid: str, mutate: Mutation, words: str) -> None:
    board = copy.deepcopy(BOARDS[uid])
    mutate(board)
    check = getattr(rules, rule)
    others = [other for other in BOARDS.values() if other["uid"] != uid]
    found = list(check(board, [board, *others]) if rule == "links_lead_somewhere" else check(board))
    assert any(words in fault for fault in found), found


def test_every_rule_has_a_planted_fault() -> None:
    planted = {rule for rule, *_ in FAULTS}
    assert planted == {rule.__name__ for rule in rules.RULES} | {"links_lead_somewhere"}


def test_a_family_on_no_dashboard_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = [board for board in BOARDS.values() if board["uid"] != "ci-steps"]
    assert "ci_steps_total is on no dashboard" in list(rules.everything_is_charted(fewer))
    monkeypatch.setitem(rules.NOT_CHARTED, "ci_steps_total", "as a test")
    assert "ci_steps_total is on no dashboard" not in list(rules.everything_is_charted(fewer))
    both = list(rules.everything_is_charted(list(BOARDS.values())))
    assert both == ["ci_steps_total is on a dashboard after all"]


@pytest.mark.parametrize(
    ("query", "labels", "faults"),
    [
        ("ci_server_up", {"server", "job", "instance"}, []),
        ("sum(ci_server_up)", set(), []),
        ("sum by (server, task) (ci_server_up)", {"server", "task"}, ["sum by or without names task"]),
        ("sum without (job) (ci_server_up)", {"server", "instance"}, []),
        ("topk(3, max by (server) (ci_server_up))", {"server"}, []),
        ("ci_server_up * on (server) group_left (version) ci_server_info", None, []),
        ("max by (server) (ci_server_up) / max by (server) (ci_builds_missing)", {"server"}, []),
        ("max by (server) (ci_server_up) / sum(ci_builds_missing)", set(), ["one side of / names server"]),
        ("ci_server_up / on (server) ci_builds_missing", {"server"}, []),
        ("ci_server_up / on (repo) ci_builds_missing", {"repo"}, ["/ on or ignoring names repo"] * 2),
        ("max by (server) (ci_server_up) or sum(up)", set(), []),
        ("max by (server) (ci_server_up) and on () up", {"server"}, []),
        ("time() - max by (server) (ci_server_up)", {"server"}, []),
        ("histogram_quantile(0.5, sum by (le) (rate(ci_build_queue_seconds_bucket[5m])))", set(), []),
        (
            "histogram_quantile(0.5, sum(rate(ci_build_queue_seconds_bucket[5m])))",
            set(),
            ["histogram_quantile names le"],
        ),
        ('label_replace(sum(up), "a", "$1", "b", "(.*)")', {"a"}, ["label_replace names b"]),
        ("max_over_time(sum by (server) (ci_server_up)[1h:5m])", {"server"}, []),
        ('ci_server_up{repo="a"}', {"server", "job", "instance"}, ["a matcher of ci_server_up names repo"]),
        ("ci_build_queue_seconds", {"job", "instance"}, ["there is no metric ci_build_queue_seconds"]),
    ],
)
def test_labels_of_a_query_are_found(query: str, labels: set[str] | None, faults: list[str]) -> None:
    reading = read(query, labels_of)
    assert reading.faults == faults
    if labels is not None and "there is no metric" not in str(faults):
        assert reading.labels == labels


def test_values_are_written_as_grafana_writes_them() -> None:
    board = BOARDS["ci-fleet"]
    query = 'ci_repo_info{repo=~"$repo", server=~"${server:regex}"}[$__range]'
    assert dashboards.filled(query, board) == 'ci_repo_info{repo=~".*", server=~".*"}[14d]'
    assert dashboards.filled('"$repo" "$1"', board, {"repo": "a.b/c"}) == r'"a\\.b/c" "$1"'
