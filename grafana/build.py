"""Writes the dashboards and the alert rules; `--check` only says which files are stale."""

import json
import sys
from pathlib import Path

import alerting
from boards import BOARDS

DASHBOARDS = Path(__file__).parent / "provisioning/dashboards/ci"


def main(check: bool) -> int:
    """Bring every file up to date, or (`check`) name the stale ones and return 1."""
    wanted = {
        DASHBOARDS / f"{board.uid}.json": json.dumps(board.json(), indent=1, ensure_ascii=False) + "\n"
        for board in BOARDS
    } | alerting.files()
    stale = 0
    for path in sorted({*wanted, *DASHBOARDS.glob("*.json")}):
        text = wanted.get(path)
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if check:
            print(f"{path.name} is stale: run `make docs`", file=sys.stderr)
        elif text is None:
            path.unlink()
        else:
            path.write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
