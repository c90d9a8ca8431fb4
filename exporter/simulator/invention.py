"""What builds look like: people, messages, commits and pipelines, made up from a seed.

Everything is a function of (seed, repo, number), so that any build of any size of world can be
computed when it is asked for.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache

from exporter.simulator.builds import Build, Leg, Outcome, Person, StepPlan

PEOPLE = tuple(
    Person(login, name, f"{login}@example.com")
    for login, name in (
        ("octocat", "Octo Cat"),
        ("zhangwei", "张伟"),
        ("grace", "Grace Hopper"),
        ("jose", "José Núñez"),
        ("soren", "Søren Åkesson"),
        ("olga", "Ольга Петрова"),
        ("ada", "Ada Lovelace"),
        ("yuki", "山田 ゆき"),
    )
)
MESSAGES = (
    "修复登录页面的空指针异常\n",
    "fix path\n",
    "Merge pull request #12 from octo/feature\n",
    "升级依赖 📦 v2.0\n",
    "refactor: split the module\n",
    "перевести страницу оплаты\n",
    'quote "this" and \\that\n',
    "add base\n\nwith a second paragraph\n",
    "mise à jour du README\n",
)
PREPARE_ERROR = "Insufficient privileges to use volumes"
CONFIG_ERROR = "yaml: line 4: did not find expected key"
WARNING = "Consider adding a `when` block with an `event` filter to this step or the entire workflow"
OUTCOMES = (Outcome.SUCCESS,) * 190 + (
    *(Outcome.FAILURE,) * 38,
    *(Outcome.CANCELLED,) * 10,
    *(Outcome.ERROR,) * 6,
    *(Outcome.TIMEOUT,) * 4,
    *(Outcome.KILLED,) * 3,
    *(Outcome.DECLINED,) * 3,
    *(Outcome.SKIPPED,) * 2,
)
"""256 of them: a build takes the one at a byte of its dice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What a generation of servers does differently, as far as the world itself is concerned."""

    restart_in_place: bool = False
    restart_sets_parent: bool = False
    restart_loses: str = ""
    """Which builds a restart of the server itself leaves without an end: open, running, or none."""
    gates: bool = True
    crons: bool = False
    hooks: bool = True
    """Pushes, pull requests, tags and deployments make builds; else people and timers alone (ABF)."""
    overtakes: bool = False
    legs_in_turn: bool = False
    stages: bool = False
    """Pipelines have named stages that may wait for each other."""
    warns: bool = False
    """A build that ran may carry a warning about its pipeline file."""
    pending_cancels: bool = False
    cancel_lasts: float = 0.0
    """Seconds after which a cancel that no agent confirmed ends with the build deleted; 0: never."""
    intake: bool = False
    """A build may be seen before it is queued."""
    publishes: bool = False
    """What was built is published afterwards; tests can be run again by themselves."""
    numbers_are_ids: bool = False
    feed_rows: int = 50
    default_branch: str = "master"
    branches: tuple[str, ...] = ("develop", "release/1.4", "feature/login", "hotfix/null")


TRAITS = {
    "drone-0.5": Traits(restart_in_place=True, restart_loses="open", gates=False, legs_in_turn=True),
    "drone-0.8": Traits(restart_sets_parent=True, restart_loses="running"),
    "drone-1": Traits(crons=True, overtakes=True, stages=True, pending_cancels=True, feed_rows=25),
    "woodpecker": Traits(
        restart_sets_parent=True, crons=True, overtakes=True, stages=True, warns=True, pending_cancels=True,
        intake=True, default_branch="main",
    ),
    "abf": Traits(
        restart_in_place=True, gates=False, crons=True, hooks=False, pending_cancels=True,
        cancel_lasts=3600.0, intake=True, publishes=True, numbers_are_ids=True,
        default_branch="rosa2023.1/main/x86_64",
        branches=("rosa2023.1/main/i686", "rosa2023.1/contrib/x86_64", "rosa2021.1/main/x86_64"),
    ),
}  # fmt: skip


def dice(seed: int, repo: str, number: int) -> bytes:
    """32 bytes that belong to this build of this repo."""
    return hashlib.blake2b(f"{seed}/{repo}/{number}".encode(), digest_size=32).digest()


def sha(roll: bytes) -> str:
    """The commit that goes with these dice."""
    return roll[12:32].hex()


def _steps(*names: str) -> tuple[StepPlan, ...]:
    weights = {"clone": 0.1, "build": 1.0, "test": 1.5}
    return tuple(StepPlan(name, weights.get(name, 0.5)) for name in names)


@lru_cache(maxsize=64)
def pipeline(kind: int, traits: Traits) -> tuple[Leg, ...]:
    """The legs of a repo whose pipeline is of this kind (0 to 5)."""
    if traits.publishes:
        return (Leg("", _steps("chroot", "build", "tests")),)
    if not traits.stages:
        if kind == 0:
            return tuple(
                Leg("", _steps("clone", "build", "test"), (("GO_VERSION", v),)) for v in ("1.7", "1.8")
            )
        return (Leg("", _steps("clone", "build", "test", *("deploy",) * (kind == 1))),)
    if kind == 0:
        return (
            Leg("lint", _steps("clone", "vet")),
            Leg("unit", _steps("clone", "build", "test")),
            Leg("deploy", _steps("clone", "push"), after=("lint", "unit")),
        )
    if kind == 1:
        return tuple(Leg(f"go-{v}", _steps("clone", "build", "test")) for v in ("1.21", "1.22"))
    if kind == 2:
        flaky = StepPlan("lint", 0.5, exit_code=1, ignored=True)
        return (Leg("default", (*_steps("clone"), flaky, *_steps("build", "test"))),)
    notify = StepPlan("notify", 0.1, always=True)
    return (Leg("default", (*_steps("clone", "build", "test"), notify)),)


@lru_cache(maxsize=256)
def failing(legs: tuple[Leg, ...], pick: int, exit_code: int = 1) -> tuple[Leg, ...]:
    """The same legs where one step, chosen by `pick`, ends with `exit_code`."""
    roots = [i for i, leg in enumerate(legs) if not leg.after]
    which = roots[pick % len(roots)] if pick % 3 else roots[-1]
    leg = legs[which]
    breakable = [i for i, step in enumerate(leg.steps) if not step.always and not step.ignored]
    where = breakable[1 + pick % (len(breakable) - 1)] if len(breakable) > 1 else breakable[0]
    step = replace(leg.steps[where], exit_code=exit_code)
    broken = replace(leg, steps=(*leg.steps[:where], step, *leg.steps[where + 1 :]))
    return (*legs[:which], broken, *legs[which + 1 :])


def unbroken(legs: tuple[Leg, ...]) -> tuple[Leg, ...]:
    """The same legs with no step that fails the build."""
    mended = [
        tuple(replace(step, exit_code=0, broken="") if step.bad else step for step in leg.steps)
        for leg in legs
    ]
    return tuple(replace(leg, steps=steps) for leg, steps in zip(legs, mended, strict=True))


def refusal(traits: Traits) -> str:
    """What an `error` says: of the pipeline file, or (0.5) of the agent that could not prepare."""
    return CONFIG_ERROR if traits.gates else PREPARE_ERROR


def invent(
    seed: int,
    repo: str,
    default_branch: str,
    number: int,
    traits: Traits,
    *,
    temper: int = 0,
    restarts: bool = True,
) -> Build:
    """A build without times and id; `temper` raises the share of failures (out of 256).

    A restarted build, where there are `restarts`, carries the commit, event and ref of the one
    before it.
    """
    own = dice(seed, repo, number)
    again = restarts and number > 1 and own[2] < 10 and _plain(dice(seed, repo, number - 1), number - 1)
    roll = dice(seed, repo, number - 1) if again else own
    person = PEOPLE[roll[3] % len(PEOPLE)]
    legs = pipeline(hashlib.blake2b(repo.encode(), digest_size=1).digest()[0] % 6, traits)
    build = Build(
        id=0, number=number, created=0, queued=0, legs=legs, person=person, commit=sha(roll),
        before=sha(dice(seed, repo, number - 1)), message=MESSAGES[roll[4] % len(MESSAGES)],
    )  # fmt: skip
    describe(build, roll, default_branch, traits, number)
    build.outcome = Outcome.FAILURE if own[1] < temper else OUTCOMES[own[1]]
    if build.outcome in (Outcome.DECLINED, Outcome.SKIPPED) and not _possible(build.outcome, traits):
        build.outcome = Outcome.SUCCESS
    if build.outcome is Outcome.FAILURE:
        build.legs = failing(legs, own[5], 1 + own[6] % 3)
    elif build.outcome is Outcome.ERROR:
        build.error = refusal(traits)
    elif build.outcome is Outcome.DECLINED:
        build.gated = True
    elif traits.warns and own[8] < 20:
        build.error = WARNING
    if again:
        build.by = PEOPLE[own[7] % len(PEOPLE)].login
        build.parent = number - 1 if traits.restart_sets_parent else 0
    elif build.event in ("deployment", "rollback"):
        build.by = person.login
        build.parent = max(1, number - 1 - own[7] % 5) if number > 1 else 0
    return build


def describe(build: Build, roll: bytes, default_branch: str, traits: Traits, number: int) -> None:
    """Gives `build` its event, branch and ref, from these dice."""
    build.branch = default_branch if roll[8] < 170 else traits.branches[roll[8] % len(traits.branches)]
    build.ref = f"refs/heads/{build.branch}"
    if not traits.hooks:
        build.event, build.by = "custom", build.person.login
        return
    if roll[0] < 168:
        return
    if roll[0] < 214:
        pull = 1 + roll[9] % 120
        build.event, build.branch, build.source = "pull_request", default_branch, f"feature-{pull}"
        build.ref, build.title = f"refs/pull/{pull}/head", build.message.splitlines()[0]
        build.action = "opened" if roll[9] % 2 else "synchronized"
    elif roll[0] < 226:
        tag = f"v1.{number}.0"
        build.event, build.ref, build.branch = "tag", f"refs/tags/{tag}", default_branch
        build.message, build.action = f"created tag {tag}", "create"
    elif roll[0] < 240:
        build.branch, build.ref = default_branch, f"refs/heads/{default_branch}"
        if traits.crons:
            build.event, build.cron, build.before = "cron", ("nightly", "weekly")[roll[9] % 2], ""
    else:
        build.branch, build.ref = default_branch, f"refs/heads/{default_branch}"
        build.event = "rollback" if traits.crons and roll[9] < 30 else "deployment"
        build.environment = ("staging", "production")[roll[9] % 2]


def _plain(roll: bytes, number: int) -> bool:
    """True when the build of these dice is no restart itself and was started by a hook."""
    return roll[0] < 226 and (number == 1 or roll[2] >= 10)


def _possible(outcome: Outcome, traits: Traits) -> bool:
    return traits.gates if outcome is Outcome.DECLINED else traits.overtakes
