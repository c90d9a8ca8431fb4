"""How many of the failing logs in tests/data/logs an excerpt explains, against their last 15 lines.

`tuned` logs were at hand when the choice was made; those that were `held-out` were written afterwards.
The target: at least 85 % of each. Also how long a log of 1 MiB takes.
"""

import time
from pathlib import Path

import yaml

from exporter.notify.excerpt import MOST_LINES, excerpt
from exporter.notify.excerpt_lines import MOST, plain
from exporter.notify.redact import Redactor
from exporter.servers import Line
from exporter.servers.operations import lines

LOGS = Path(__file__).parent.parent / "tests/data/logs"


def main() -> None:
    hide = Redactor()
    for kind, cases in yaml.safe_load((LOGS / "causes.yaml").read_text(encoding="utf-8")).items():
        told, ends, missed = 0, 0, []
        for name, case in cases.items():
            log = lines((LOGS / kind / f"{name}.log").read_bytes().decode("utf-8", "replace"))
            found = case["cause"] in excerpt(log, hide, exit_code=case["exit"])
            told += found
            ends += case["cause"] in "\n".join(plain(log)[-MOST_LINES:])
            missed += [] if found else [name]
        share = f"{told} of {len(cases)} ({told / len(cases):.0%})"
        also = f"; missed: {', '.join(missed)}" if missed else ""
        print(f"{kind}: excerpt {share}, last {MOST_LINES} lines {ends} ({ends / len(cases):.0%}){also}")
    log = [
        Line(f"12:00:{n % 60:02} step {n} of the build said nothing of interest") for n in range(MOST // 52)
    ]
    began = time.perf_counter()
    excerpt(log, hide, exit_code=1)
    size = sum(len(line.text) + 1 for line in log) / (1 << 20)
    print(f"a log of {size:.2f} MiB: {time.perf_counter() - began:.3f} s")


if __name__ == "__main__":
    main()
