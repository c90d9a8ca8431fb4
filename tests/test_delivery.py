"""The four numbers of software delivery, from deployments on a simulated server to the page."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rig import DAY, Rig, build, rig

from exporter.config_delivery import DeliverySettings
from exporter.delivery import DeliveryGauges
from exporter.dora import WINDOWS, Delivery, Deployment, deliver

NOW = 100 * DAY
EMPTY = Delivery(0, 0, None, None)


def test_the_four_numbers() -> None:
    at = int(NOW) - 1000
    numbers = deliver(
        [
            Deployment("prod", at - 300, good=True, committed=at - 900),
            Deployment("prod", at - 200, good=False, committed=at - 250),
            Deployment("prod", at - 150, good=False),
            Deployment("prod", at, good=True, committed=at - 250),
            Deployment("prod-eu", at + 10, good=True),
        ],
        NOW,
    )
    assert set(numbers) == set(WINDOWS)
    assert numbers["7d"] == Delivery(deployments=5, failed=2, lead_time=425.0, time_to_restore=200.0)


@pytest.mark.parametrize(("days", "windows"), [(1, {"7d", "30d", "90d"}), (8, {"30d", "90d"}), (31, {"90d"})])
def test_a_deployment_belongs_to_the_windows_it_ended_in(days: int, windows: set[str]) -> None:
    numbers = deliver([Deployment("prod", int(NOW - days * DAY), good=True)], NOW)
    assert {window for window, delivery in numbers.items() if delivery != EMPTY} == windows


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 50), st.booleans()), max_size=20), st.randoms()
)
def test_their_order_does_not_matter_and_a_failure_is_restored_at_most_once(
    told: list[tuple[str, int, bool]], shuffle: object
) -> None:
    by_time = {(environment, at): good for environment, at, good in told}
    ended = [Deployment(environment, at, good) for (environment, at), good in by_time.items()]
    shuffled = list(ended)
    shuffle.shuffle(shuffled)  # type: ignore[attr-defined]
    numbers = deliver(ended, 60)["90d"]
    assert deliver(shuffled, 60)["90d"] == numbers
    assert (numbers.deployments, numbers.failed) == (len(ended), sum(not d.good for d in ended))
    if numbers.time_to_restore is not None:
        assert 0 < numbers.time_to_restore < 50
        assert numbers.failed


@pytest.fixture
def ci(tmp_path: Path) -> Iterator[Rig]:
    with rig("drone-1", tmp_path) as made:
        made.settle()
        yield made


def shown(ci: Rig, settings: DeliverySettings | None = None) -> dict[str, dict[str, float]]:
    """By family the values by window, for the one repo there is."""
    ci.page.drop(("ci", "octo/hello", "delivery"))
    gauges = DeliveryGauges(
        ci.page, ci.ledger, settings or DeliverySettings(), {"ci": ci.watch.policy}, ci.clock.now
    )
    gauges.renew()
    return {
        name: {labels["window"]: value for labels, value in ci.family(f"ci_delivery_{name}")}
        for name in ("deployments", "failed_deployments", "lead_time_seconds", "time_to_restore_seconds")
    }


def deploy(ci: Rig, outcome: str, environment: str = "production", commit: str = "") -> None:
    build(ci, outcome, event="deployment", environment=environment, commit=commit)
    ci.good_poll()


def test_promotions_are_deployments(ci: Rig) -> None:
    commit = "4a" * 20
    began = ci.clock.now()
    build(ci, commit=commit)
    deploy(ci, "failure", commit=commit)
    failed = ci.clock.now()
    deploy(ci, "cancelled", commit=commit)
    deploy(ci, "success", environment="staging", commit=commit)
    deploy(ci, "success", commit=commit)
    ci.good_poll()
    page = shown(ci)
    assert page["deployments"] == dict.fromkeys(WINDOWS, 2)
    assert page["failed_deployments"] == dict.fromkeys(WINDOWS, 1)
    assert 100 < page["lead_time_seconds"]["7d"] <= ci.clock.now() - began
    assert 0 < page["time_to_restore_seconds"]["7d"] <= ci.clock.now() - failed + 60
    ci.clock.advance(8 * DAY)
    ci.good_poll()
    assert shown(ci)["deployments"] == {"7d": 0, "30d": 2, "90d": 2}
    assert set(shown(ci)["lead_time_seconds"]) == {"30d", "90d"}


def test_a_repo_without_deployments_has_none(ci: Rig) -> None:
    build(ci)
    ci.good_poll()
    assert not any(shown(ci).values())


def test_branches_and_steps_may_be_deployments(ci: Rig) -> None:
    build(ci, "failure")
    build(ci)
    build(ci, branch="feature_x")
    build(ci, event="pull_request")
    ci.good_poll()
    steps = {name for (name,) in ci.query("SELECT DISTINCT name FROM steps")}
    assert "test" in steps

    def counted(**rule: str) -> tuple[float, float]:
        page = shown(ci, DeliverySettings.model_validate({"deployments": [rule]}))
        return page["deployments"].get("7d", 0), page["failed_deployments"].get("7d", 0)

    assert counted(branch="main") == (2, 1)
    assert counted(branch="m?in", step="te[rs]t") == (2, 1)
    assert counted(branch="feature_*") == (1, 0)
    assert counted(branch="featureXx") == (0, 0), "an underscore is no wildcard"
    assert counted(branch="MAIN") == (0, 0), "upper and lower case differ"
    assert counted(step="deploy*") == (0, 0)
    assert counted(repo="octo/h*") == (3, 1)
    assert counted(repo="other/*") == (0, 0)
    assert counted(environment="staging") == (0, 0), "not one of `environments`"


def test_what_only_leaves_out_is_no_deployment(tmp_path: Path) -> None:
    with rig("drone-1", tmp_path, only={"events": ["push"]}) as ci:
        ci.settle()
        deploy(ci, "success")
        assert shown(ci)["deployments"] == {}


def test_a_repo_whose_deployments_are_too_old_is_shown_no_more(ci: Rig) -> None:
    deploy(ci, "success")
    gauges = DeliveryGauges(ci.page, ci.ledger, DeliverySettings(), {"ci": ci.watch.policy}, ci.clock.now)
    gauges.renew()
    assert ci.family("ci_delivery_deployments")
    ci.clock.advance(91 * DAY)
    ci.good_poll()
    gauges.renew()
    assert not ci.family("ci_delivery_deployments")
