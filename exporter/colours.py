"""The colour of every status, on every page and panel; the word always stands beside it."""

from exporter.model import Status

STATUS_COLOURS = {
    Status.UNKNOWN: "#808080",
    Status.SUCCESS: "#37872d",
    Status.FAILURE: "#e02f44",
    Status.ERROR: "#ad0317",
    Status.TIMEOUT: "#fa6400",
    Status.CANCELLED: "#8e8e9c",
    Status.SKIPPED: "#6e6e7c",
    Status.DECLINED: "#a08c74",
    Status.BLOCKED: "#e0b400",
    Status.PENDING: "#8ab8ff",
    Status.RUNNING: "#3274d9",
}
"""Green is good, red and orange are bad, greys are neutral, blues and yellow have no end yet."""
