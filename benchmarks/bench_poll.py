"""What it costs to watch 10,000 repos: while all is quiet, and with 20 short builds ending a second.

The targets: at most 3 requests a cycle and 3 % of a core at an interval of 15 s while quiet, the
sweep every 10 minutes included; at most 2.1 requests for each ended build, none of which is recorded
later than two intervals after its end.
"""

import argparse
import time

from simulated import Simulated, Watched, simulated, watched

INTERVAL = 15.0
SWEEP = 600.0


def look(target: Watched) -> None:
    target.watch.cycle(history=False)
    if target.watch.fault:
        raise SystemExit(target.watch.fault)


def quiet(server: Simulated, target: Watched, cycles: int) -> None:
    look(target)
    began = time.process_time()
    target.watch._swept = -float("inf")
    look(target)
    sweep = time.process_time() - began
    server.asked("DELETE")
    began = time.process_time()
    for _ in range(cycles):
        look(target)
    cycle = (time.process_time() - began) / cycles
    requests = sum(server.asked().values()) / cycles
    share = 100 * (cycle / INTERVAL + sweep / SWEEP)
    print(f"  quiet: {requests:.1f} requests a cycle (target: at most 3)")
    print(
        f"  quiet: {share:.2f} % of a core at {INTERVAL:.0f} s (target: at most 3): "
        f"{1000 * cycle:.1f} ms a cycle, {1000 * sweep:.0f} ms a sweep every {SWEEP:.0f} s"
    )


def busy(server: Simulated, target: Watched, user: str, cycles: int, rate: int, repos: int) -> None:
    look(target)
    before = target.watch.ended[1]
    server.asked("DELETE")
    for cycle in range(cycles + 2):
        if cycle < cycles:
            count = int(rate * INTERVAL)
            server.tell("burst", count=count, repos=repos, over=INTERVAL, seconds=4.0)
        server.tell("advance", seconds=INTERVAL)
        look(target)
        counted = target.watch.ended[1] - before
        ended_before = max(0, cycle) * int(rate * INTERVAL)
        if cycle and counted < min(ended_before, cycles * int(rate * INTERVAL)):
            raise SystemExit(f"late: {counted} of {ended_before} ends recorded after cycle {cycle}")
    counts = server.asked()
    requests = sum(n for route, n in counts.items() if "/_sim" not in route)
    print(
        f"  {rate} short builds a second, {user}: {counted} ended, {requests / counted:.2f} requests for "
        "each (target: at most 2.10), none later than two intervals"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repos", type=int, default=10_000)
    parser.add_argument("--cycles", type=int, default=8)
    chosen = parser.parse_args()
    for dialect in ("drone-0.8", "drone-1"):
        print(f"polling: {chosen.repos} repos on {dialect}")
        with simulated(dialect, chosen.repos, 1) as server:
            for user, token in (("administrator", server.admin), ("plain user", server.reader)):
                with watched(server.url, token, **{"import": 0}) as target:
                    if user == "administrator":
                        quiet(server, target, 20)
                    busy(server, target, user, chosen.cycles, 20, chosen.repos)


if __name__ == "__main__":
    main()
