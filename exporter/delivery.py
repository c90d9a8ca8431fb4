"""The gauges of software delivery, rendered anew from time to time: windows of days move by themselves."""

from collections.abc import Callable, Iterator, Mapping

from exporter.config_delivery import DeliverySettings
from exporter.dora import WINDOWS, Delivery, deliver
from exporter.exposition import Page
from exporter.ledger import Ledger, LedgerError, Policy
from exporter.ledger.deployments import deployments
from exporter.log import logger
from exporter.metrics import METRICS, Sample

HOURLY, FIRST = 3600.0, 10.0
"""Seconds between two renewals, and until the first one, so that the page comes before."""

log = logger(__name__)


class DeliveryGauges:
    """Puts the four numbers of each repo with deployments on the page."""

    def __init__(
        self,
        page: Page,
        ledger: Ledger,
        settings: DeliverySettings,
        policies: Mapping[str, Policy],
        clock: Callable[[], float],
    ) -> None:
        self._page, self._ledger, self._clock = page, ledger, clock
        self._settings, self._policies = settings, policies
        self._shown: set[tuple[str, str, str]] = set()

    def renew(self) -> None:
        """Reads the deployments of the last 90 days; what cannot be read stays as it is."""
        now = self._clock()
        try:
            with self._ledger.reading() as conn:
                since = int(now - max(WINDOWS.values()))
                found = deployments(conn, self._settings, self._policies, since)
        except LedgerError as error:
            log.warning("the delivery numbers cannot be renewed", error=error)
            return
        shown = set()
        for repo, of_repo in found.items():
            key = (*repo, "delivery")
            shown.add(key)
            self._page.put(key, _samples(repo, deliver(of_repo, now)))
        for key in self._shown - shown:
            self._page.drop(key)
        self._shown = shown


def _samples(repo: tuple[str, str], numbers: Mapping[str, Delivery]) -> Iterator[Sample]:
    for window, delivery in numbers.items():
        values = {
            "ci_delivery_deployments": delivery.deployments,
            "ci_delivery_failed_deployments": delivery.failed,
            "ci_delivery_lead_time_seconds": delivery.lead_time,
            "ci_delivery_time_to_restore_seconds": delivery.time_to_restore,
        }
        for family, value in values.items():
            if value is not None:
                yield Sample(METRICS[family], (*repo, window), float(value))
