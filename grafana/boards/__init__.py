"""The dashboards as data; `../build.py` writes them as Grafana reads them."""

from boards import delivery, fleet, health, queue, repository, steps
from boards.dashboard import Dashboard

BOARDS: tuple[Dashboard, ...] = (
    fleet.BOARD,
    repository.BOARD,
    steps.BOARD,
    queue.BOARD,
    delivery.BOARD,
    health.BOARD,
)
