"""What gauges know of the past: a fold over ends that come in any order."""

from hypothesis import given
from hypothesis import strategies as st

from exporter.ledger.heads import (
    BranchHead,
    CronHead,
    EnvironmentHead,
    Point,
    add_branch_end,
    add_cron_end,
    add_environment_end,
)
from exporter.model import Status

BAD = {Status.FAILURE, Status.ERROR, Status.TIMEOUT}
ENDED = [status for status in Status if not status.open]


def end(number: int, status: Status = Status.SUCCESS, duration: int | None = 30, run: int = 0) -> Point:
    return Point((0, number, run), 1000 + number, status, duration)


def fold(ends: list[Point]) -> BranchHead:
    """As the ledger does it: where failures must be counted again, all that is known is folded anew."""
    head = BranchHead()
    for place, point in enumerate(ends):
        if add(head, point):
            head = BranchHead()
            for known in sorted(ends[: place + 1], key=lambda p: p.key):
                assert not add(head, known), "in their own order nothing is ever counted again"
    return head


def add(head: BranchHead, point: Point) -> bool:
    return add_branch_end(head, point, good=point.status == Status.SUCCESS, bad=point.status in BAD)


@given(
    statuses=st.lists(
        st.tuples(st.sampled_from(ENDED), st.none() | st.integers(0, 50)), min_size=1, max_size=60
    ),
    data=st.data(),
)
def test_the_order_in_which_ends_come_does_not_matter(
    statuses: list[tuple[Status, int | None]], data: st.DataObject
) -> None:
    ends = [end(i // 2, status, duration, i % 2) for i, (status, duration) in enumerate(statuses)]
    head = fold(data.draw(st.permutations(ends)))
    good = [p for p in ends if p.status == Status.SUCCESS]
    bad = [p for p in ends if p.status in BAD]
    last_good = good[-1].key if good else (-1, 0, 0)
    assert head.last == ends[-1]
    assert head.good == (good[-1] if good else None)
    assert head.bad == (bad[-1] if bad else None)
    assert head.failures == sum(p.key > last_good for p in bad)
    assert head.durations == [(p.key, p.duration) for p in good if p.duration is not None][-20:]


def test_neutral_ends_do_not_count_and_end_no_run_of_failures() -> None:
    neutral = [Status.CANCELLED, Status.SKIPPED, Status.DECLINED, Status.UNKNOWN]
    ends = [
        end(1),
        end(2, Status.FAILURE),
        *(end(3 + i, s) for i, s in enumerate(neutral)),
        end(9, Status.ERROR),
    ]
    assert fold(ends).failures == 2


def test_newest_is_the_highest_number_and_run_not_the_latest_end() -> None:
    late = Point((0, 4, 10), 9999, Status.SUCCESS, 5)
    head = fold([Point((0, 5, 20), 2000, Status.FAILURE, 5), late])
    assert head.last is not None
    assert head.last.key == (0, 5, 20)
    assert head.good == late
    assert fold([end(5), end(5, Status.FAILURE, run=7)]).failures == 1
    assert fold([Point((0, 500, 1), 1, Status.SUCCESS), Point((1, 1, 9), 2, Status.FAILURE)]).failures == 1


def test_the_expected_duration_is_the_median_of_the_last_20_from_3_on() -> None:
    assert fold([end(1, duration=10), end(2, duration=20)]).expected_duration is None
    assert fold([end(1, duration=10), end(2, duration=20), end(3, duration=90)]).expected_duration == 20
    assert fold([end(i, duration=i) for i in range(4)]).expected_duration == 1.5
    assert fold([end(i, duration=i) for i in range(1, 101)]).expected_duration == 90.5
    failed = [end(i, Status.FAILURE, duration=1000) for i in range(10, 20)]
    assert fold([end(i, duration=10) for i in range(3)] + failed).expected_duration == 10


def test_a_cron_jobs_interval_is_the_median_gap_of_its_last_10_scheduled_starts() -> None:
    def intervals(starts: list[tuple[int, bool]]) -> float | None:
        head = CronHead()
        for number, (created, scheduled) in enumerate(starts):
            add_cron_end(head, end(number), created, scheduled=scheduled)
        return head.interval

    assert intervals([(0, True), (60, True)]) is None
    assert intervals([(0, True), (60, True), (130, True)]) == 65
    assert intervals([(0, True), (60, True), (61, False), (62, False), (120, True)]) == 60
    assert intervals([(i * 1000, True) for i in range(5)] + [(5000 + i * 60, True) for i in range(10)]) == 60
    head = CronHead()
    for number in (3, 1, 2, 4):
        add_cron_end(head, end(number), number * 100, scheduled=True)
    assert head.interval == 100
    assert head.last == end(4)


def test_the_newest_deployment_stays_though_an_older_one_ends_later() -> None:
    head = EnvironmentHead()
    for number in (1, 3, 2):
        add_environment_end(head, end(number))
    assert head.last == end(3)
    add_environment_end(head, end(3, Status.FAILURE))
    assert head.last == end(3, Status.FAILURE), "what it reads now"
