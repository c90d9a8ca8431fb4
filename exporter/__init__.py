"""Every build of every Drone-style CI server as correct Prometheus metrics."""

__version__ = "0.1.0"
