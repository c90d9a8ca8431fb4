"""What is known of every build, and the counters' own values: the one place with SQL."""

from exporter.ledger.ledger import Ledger, LedgerError, LedgerInUseError, RepoFacts
from exporter.ledger.names import Policy
from exporter.ledger.record import Ended, Moment, Recorded, is_live, record

__all__ = [
    "Ended",
    "Ledger",
    "LedgerError",
    "LedgerInUseError",
    "Moment",
    "Policy",
    "Recorded",
    "RepoFacts",
    "is_live",
    "record",
]
