"""A CI server that is not one: it speaks Drone 0.5, 0.8, 1.x, Woodpecker and ABF on loopback.

It stands on the other side of the wire from `exporter.servers` and knows nothing of it. The demo,
the end-to-end tests and the benchmarks read it; what real servers said is in tests/data/recordings.

    clock = Clock(1_800_000_000)                  # stands still; Clock.real() runs
    world = World("drone-0.8", clock=clock, seed=1)
    world.add_repos([f"acme/{i}" for i in range(1000)], builds=100)   # history, computed when asked for
    world.add_repo("octo/hello")
    number = world.start_build("octo/hello", branch="develop")        # pending
    with serve(world) as running:                 # .url, .requests, .stop()
        ...                                       # world.token is an admin's
        world.run("octo/hello", number)
        clock.advance(60)
        world.finish("octo/hello", number, "failure", failed="test", exit_code=2)

A build's visible state is computed from its times and the clock, so tests step the clock and sleep
nowhere: `start_build(..., started=t1, finished=t2, outcome=...)` moves by itself.

Hooks and timers: `start_build` (event, branch, commit, author, tag, pull, cron, environment, legs …),
`block`, `short_builds` (many, spread over a time), `filtered_push`. Agents: `run`, `finish` (outcomes
success, failure, error, cancelled, timeout, killed, skipped). People: `cancel`, `approve`, `decline`,
`restart` (0.5, ABF: in place). ABF, where a build's number is its id: `requeue`, `publish`, `published`,
`reject`, `rerun_tests`, `lose_packages`, `report_late`, `make_container`. The server itself: `vanish`.
Operators: `add_repo(s)`, `delete_repo`, `make_private`, `deny`/`allow`, `remove_build` (a hole),
`replace_by_empty` (numbers begin at 1 again), `server_restart`, `add_user`, `set_user(admin=False)`,
`revoke`; attributes `source_host_down`, `community` (1.x: 501), `listing_delay` (new repos are listed
late), `feed_repos` (0.5 on SQLite: 999), `log_delay` (Woodpecker), `openmandriva`, `anonymous_access`,
`hourly_limit` (ABF). Anything later: `world.at(when, act)`.
To compare with: `runs()` (every run, those overwritten too), `status(run)` (the exporter's word for it).

Faults: `world.faults.add(kind, path, times=n, …)`, `off(fault)`, `clear()`; kinds are slow, hang,
trickle, reset, cut (connection closed within the body), limit (429), status, not_found, not_admin,
community, redirect, html, truncated, wrong_types, unknown_status, times, huge, date; of a stream that is
connected drop, silence. Not faults of the
wire: a bad token is any other than `world.token` (ABF: user name of Basic); `world.source_host_down` is a
source host that denies; `serve(world, tls=(certificate, key))` is a server whose certificate nobody knows.

Change streams (SSE on 0.8, 1.x, Woodpecker, a WebSocket on 0.5) are told what the clock and the acts do;
most kinds of fault refuse them.

`life.Life` makes builds come and go by the clock and a seed; `demo.demo_worlds(now)` are the
servers of the demo; `python -m exporter.simulator --help` serves one in a process of its own, steered
over `/_sim/...` (`control.act`). A world of another dialect needs an entry in `invention.TRAITS` and,
in `server.ANSWER`, a function from request to answer.
"""

from exporter.simulator.builds import Build, Leg, Outcome, Person, StepPlan
from exporter.simulator.clock import Clock
from exporter.simulator.server import Running, serve
from exporter.simulator.world import World

__all__ = ["Build", "Clock", "Leg", "Outcome", "Person", "Running", "StepPlan", "World", "serve"]
