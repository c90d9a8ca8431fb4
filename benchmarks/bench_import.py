"""Import of 100,000 builds, against a bare loop that reads and decodes the same list pages.

Each reads a server that was just started, whose pages are rendered as they are asked for, as a real
one's are. Single builds (ends that a row does not tell) are counted apart. The target: at least half the
rate of the bare loop, in less than 200 MB.
"""

import argparse
import json
import resource
import time

import requests
from simulated import Watched, simulated, watched


def bare(url: str, token: str, repos: int, builds: int, size: int) -> float:
    """Seconds that a loop needs which only reads the pages."""
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {token}"
    began = time.perf_counter()
    for repo in range(repos):
        for page in range(1, -(-builds // size) + 1):
            answer = session.get(
                f"{url}/api/repos/load/r{repo:05d}/builds?page={page}&per_page={size}", timeout=60
            )
            json.loads(answer.content)
    return time.perf_counter() - began


def lists(target: Watched) -> float:
    """Seconds that the exporter needs to read and record all list pages."""
    watch = target.watch
    watch.cycle(history=False)
    if watch.fault:
        raise SystemExit(watch.fault)
    connected = watch._connect()
    began = time.perf_counter()
    while watch._read_gaps(connected, history=True, go_on=lambda: True):
        pass
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repos", type=int, default=1000)
    parser.add_argument("--builds", type=int, default=100, help="of each repo")
    parser.add_argument("--dialect", default="drone-1", choices=("drone-0.8", "drone-1"))
    chosen = parser.parse_args()
    size = 100 if chosen.dialect == "drone-1" else 50
    total = chosen.repos * chosen.builds
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loops = []
    for _ in range(2):
        with simulated(chosen.dialect, chosen.repos, chosen.builds) as server:
            loops.append(bare(server.url, server.admin, chosen.repos, chosen.builds, size))
    with (
        simulated(chosen.dialect, chosen.repos, chosen.builds) as server,
        watched(server.url, server.admin) as target,
    ):
        ours = lists(target)
        began = time.perf_counter()
        read = target.watch._connect().follower.read_ends(history=True, go_on=lambda: True)
        singles = time.perf_counter() - began
        kept = target.ledger.count_builds()["ci"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loop = min(loops)
    print(f"import: {kept} builds kept of {total} on the server ({chosen.dialect}, pages of {size})")
    print(f"  bare loop   {total / loop:9.0f} builds/s   ({', '.join(f'{t:.2f} s' for t in loops)})")
    print(f"  list pages  {total / ours:9.0f} builds/s   ({ours:.2f} s)")
    print(f"  ratio       {loop / ours:9.2f}   (target: at least 0.50)")
    print(f"  singles     {read / max(singles, 1e-9):9.0f} builds/s   ({read} in {singles:.2f} s)")
    print(f"  memory      {peak / 1024:9.0f} MB  (target: under 200; {before / 1024:.0f} before the import)")


if __name__ == "__main__":
    main()
