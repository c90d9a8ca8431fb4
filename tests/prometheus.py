"""A real Prometheus on a port of its own."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from process import samples, until
from programs import path_of


class Prometheus:
    """A running Prometheus on `directory`/tsdb, which scrapes `target` (an address) every second, if any."""

    def __init__(self, directory: Path, target: str = "", *flags: str) -> None:
        scrape = {"job_name": "ci", "static_configs": [{"targets": [target]}]} if target else None
        config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape] if scrape else []}
        file = directory / "prometheus.yml"
        file.write_text(json.dumps(config))
        self._log = directory / "prometheus.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    str(path_of("prometheus")),
                    f"--config.file={file}",
                    f"--storage.tsdb.path={directory / 'tsdb'}",
                    "--web.listen-address=127.0.0.1:0",
                    "--enable-feature=exemplar-storage",
                    *flags,
                ],
                stderr=log,
            )
        listening = until("Prometheus", lambda: re.search(r'"Listening on" address=(\S+)', self.log))
        self._url = f"http://{listening[1]}"
        self._session = requests.Session()
        until("its readiness", lambda: requests.get(f"{self._url}/-/ready", timeout=5).status_code == 200)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def answer(self, path: str, **parameters: str) -> dict[str, Any]:
        """What the API says, be it an error."""
        got = self._session.get(f"{self._url}/api/v1/{path}", params=parameters, timeout=30)
        return dict(got.json())

    def api(self, path: str, **parameters: str) -> Any:
        answer = self.answer(path, **parameters)
        assert answer["status"] == "success", answer
        return answer["data"]

    def values(self, query: str, *labels: str, **parameters: str) -> dict[tuple[str, ...], float]:
        """The result of an instant query (now, or at `time`): values of these labels → value."""
        return {
            tuple(series["metric"].get(label, "") for label in labels): float(series["value"][1])
            for series in self.api("query", query=query, **parameters)["result"]
        }

    def own_metrics(self) -> dict[str, float]:
        return samples(requests.get(f"{self._url}/metrics", timeout=10).text)

    def stop(self) -> None:
        self._session.close()
        self.process.kill()
        self.process.wait()


@contextmanager
def prometheus(directory: Path, target: str = "", *flags: str) -> Iterator[Prometheus]:
    made = Prometheus(directory, target, *flags)
    try:
        yield made
    finally:
        made.stop()
