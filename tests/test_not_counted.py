"""Systems whose builds can be shown and changed, and are not counted yet, are refused in so many words."""

from pathlib import Path

import pytest
from rig import rig

from exporter.cli.check import look


@pytest.mark.parametrize("dialect", ["woodpecker", "abf"])
def test_it_is_said_and_nothing_is_recorded(dialect: str, tmp_path: Path) -> None:
    with rig(dialect, tmp_path) as ci:
        ci.world.start_build("octo/hello", running=True)
        ci.poll()
        assert f"speaks {dialect}: this version shows its builds" in ci.watch.fault
        assert ci.value("ci_server_up") == 0
        assert ci.query("SELECT count(*) FROM builds") == [(0,)]
        report = look(ci.settings, ci.telemetry)
        assert report.refused
        assert "does not count them yet" in report.bad[0]
