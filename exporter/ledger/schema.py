"""The ledger's tables: what is known of every build, and the counters' own values.

A run of a build is keyed by (repo, generation, number, run); all four rise, so "newer" is their
order. Times are Unix seconds by the server's clock unless a comment says "our clock".
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

HEAD = "0001"
"""The newest revision in `migrations/versions/`; a test compares."""

# What has been said of a run (column `builds.state`): nothing of its end; a row said that it ended; its
# end is known; it is, but a later row does not fit. All but the settled ones are still asked about.
OPEN, ENDING, SETTLED, DOUBTED = 0, 1, 2, 3

# How far a repo's history is known (column `repos.judged`): not at all, so that no end is judged yet; by
# its newest list page; to its end.
UNREAD, NEWEST, WHOLE = 0, 1, 2

# What became of a message (column `outbox.state`): to be told later, or within another message (`into_id`);
# to be sent; being sent until `lease`; sent; told within another; refused for good; tried for too long.
HELD, WAITING, SENDING, DELIVERED, SUPERSEDED, DEAD, EXPIRED = range(7)

metadata = MetaData()

# SQLite numbers rows by itself only where the key is an INTEGER.
_RowId = BigInteger().with_variant(Integer, "sqlite")

servers = Table(
    "servers",
    metadata,
    Column("name", String, primary_key=True),
    Column("first_contact", BigInteger, nullable=False),
    Column("last_sweep", BigInteger, nullable=False, default=0),
    Column("last_poll", Float, nullable=False, default=0.0),  # our clock
    Column("skew", Float, nullable=False, default=0.0),
    Column("cursor", String, nullable=False, default=""),  # of the feed, as far as it is recorded
)

repos = Table(
    "repos",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    Column("server", String, ForeignKey("servers.name"), nullable=False),
    Column("name", String, nullable=False),
    Column("uid", String, nullable=False, default=""),
    Column("default_branch", String, nullable=False, default=""),
    Column("timeout", BigInteger, nullable=False, default=0),
    Column("build_url", String, nullable=False, default=""),
    Column("horizon", BigInteger, nullable=False),
    Column("horizon_skew", Float, nullable=False, default=0.0),  # the server's clock minus ours then
    Column("generation", BigInteger, nullable=False, default=0),
    Column("highest", BigInteger, nullable=False, default=0),
    Column("highest_created", BigInteger, nullable=False, default=0),
    Column("watched", Boolean, nullable=False, default=True),
    Column("missed_sweeps", Integer, nullable=False, default=0),
    Column("missed_since", Float, nullable=False, default=0.0),  # our clock
    Column("gone", Boolean, nullable=False, default=False),
    Column("pruned", BigInteger, nullable=False, default=0),  # what ended before was removed
    Column("judged", Integer, nullable=False, default=0),  # how far its history is known to incidents
    UniqueConstraint("server", "name"),
)

gaps = Table(
    "gaps",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    Column("repo_id", BigInteger, ForeignKey("repos.id"), nullable=False, index=True),
    Column("generation", BigInteger, nullable=False),
    Column("low", BigInteger, nullable=False),
    Column("high", BigInteger, nullable=False),
    Column("history", Boolean, nullable=False),
    Column("failed", Boolean, nullable=False, default=False),
    comment="Numbers known to exist and not read yet: history, or what a feed overran.",
)

builds = Table(
    "builds",
    metadata,
    Column("repo_id", BigInteger, ForeignKey("repos.id"), primary_key=True, autoincrement=False),
    Column("generation", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("run", BigInteger, primary_key=True, autoincrement=False),
    Column("state", Integer, nullable=False),
    Column("counted", Boolean, nullable=False, default=False),
    Column("id", BigInteger, nullable=False),
    Column("status", Integer, nullable=False),
    Column("event", String, nullable=False),
    Column("branch", String, nullable=False),
    Column("ref", String, nullable=False),
    Column("ref_class", String, nullable=False),
    Column("commit", String, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("finished", BigInteger, nullable=False),
    Column("wait", BigInteger),
    Column("duration", BigInteger),
    Column("parent", BigInteger, nullable=False),
    Column("by_hand", Boolean, nullable=False),
    Column("environment", String, nullable=False),
    Column("cron", String, nullable=False),
    Column("author", String, nullable=False),
    Column("title", String, nullable=False),
    Column("seen_open", BigInteger, nullable=False, default=0),  # at or after the horizon
    Column("recorded", Float, nullable=False, default=0.0),  # when its end was settled here (our clock)
    Column("row_started", BigInteger, nullable=False, default=0),  # as the last row without `run` had it
    Column("row_finished", BigInteger, nullable=False, default=0),
)
Index("builds_unsettled", builds.c.repo_id, sqlite_where=builds.c.state != SETTLED,
      postgresql_where=builds.c.state != SETTLED)  # fmt: skip
Index("builds_by_commit", builds.c.repo_id, builds.c.commit)
Index("builds_counted", builds.c.repo_id, sqlite_where=text("counted"),
      postgresql_where=text("counted"))  # fmt: skip
Index("builds_by_branch", builds.c.repo_id, builds.c.branch, builds.c.event,
      builds.c.generation, builds.c.number, builds.c.run)  # fmt: skip

steps = Table(
    "steps",
    metadata,
    Column("repo_id", BigInteger, ForeignKey("repos.id"), primary_key=True, autoincrement=False),
    Column("generation", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("run", BigInteger, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("name", String, nullable=False),
    Column("status", Integer, nullable=False),
    Column("exit_code", BigInteger, nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("finished", BigInteger, nullable=False),
    Column("ignored", Boolean, nullable=False),
    sqlite_with_rowid=False,
)

totals = Table(
    "totals",
    metadata,
    Column("repo_id", BigInteger, ForeignKey("repos.id"), primary_key=True, autoincrement=False),
    Column("family", String, primary_key=True),
    Column("labels", String, primary_key=True),  # the values after server and repo, as JSON
    Column("value", Float, nullable=False),  # a histogram's sum
    Column("counts", Text),  # a histogram's buckets, each alone, as JSON
    Column("exemplars", Text),  # {bucket: [number, value, time]}, as JSON
    Column("since", Float, nullable=False),  # our clock
    sqlite_with_rowid=False,
)

names = Table(
    "names",
    metadata,
    Column("repo_id", BigInteger, ForeignKey("repos.id"), primary_key=True, autoincrement=False),
    Column("kind", String, primary_key=True),  # branch, series (branch and event), step, environment, cron
    Column("name", String, primary_key=True),
    Column("slot", Boolean, nullable=False),  # it takes one of the places that are capped
    Column("since", Float, nullable=False),  # our clock
    Column("last", BigInteger, nullable=False),  # its newest build
    sqlite_with_rowid=False,
    comment="Label values in use: once named, a value keeps its name.",
)

heads = Table(
    "heads",
    metadata,
    Column("repo_id", BigInteger, ForeignKey("repos.id"), primary_key=True, autoincrement=False),
    Column("kind", String, primary_key=True),  # branch, cron, environment
    Column("name", String, primary_key=True),  # the label values, as JSON
    Column("state", Text, nullable=False),  # what the newest ends say, as JSON (heads.py)
    sqlite_with_rowid=False,
    comment="What gauges need of a repo's past, so that nobody reads it again.",
)

incidents = Table(
    "incidents",
    metadata,
    Column("repo_id", BigInteger, ForeignKey("repos.id"), primary_key=True, autoincrement=False),
    Column("ref_class", String, primary_key=True),
    Column("red", Boolean, nullable=False),
    Column("wakes", Float, nullable=False),  # when time alone changes it (our clock)
    Column("state", Text, nullable=False),  # as JSON (exporter/incidents.py)
    comment="What is known of each ref class, kept while it is green too.",
)
Index("incidents_red", incidents.c.repo_id, sqlite_where=text("red"), postgresql_where=text("red"))
Index("incidents_waking", incidents.c.wakes)

outbox = Table(
    "outbox",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    Column("key", String, nullable=False, unique=True),  # the same for every attempt
    Column("target", String, nullable=False),
    Column("thread", String, nullable=False),  # what is told in order: one ref class of a repo
    Column("epoch", Integer, nullable=False),  # which of its incidents
    Column("kind", String, nullable=False),
    Column("server", String, nullable=False),
    Column("repo_id", BigInteger, ForeignKey("repos.id")),
    Column("state", Integer, nullable=False),
    Column("hold", String, nullable=False, default=""),  # why it is told later
    Column("into_id", BigInteger),  # the message that tells it
    Column("created", Float, nullable=False),  # our clock, here and below
    Column("ready", Float, nullable=False),  # since when it is held no more
    Column("due", Float, nullable=False),
    Column("expires", Float, nullable=False),
    Column("lease", Float, nullable=False, default=0.0),
    Column("closed", Float, nullable=False, default=0.0),
    Column("attempts", Integer, nullable=False, default=0),
    Column("short", Boolean, nullable=False, default=False),  # refused as too large before
    Column("answer", String, nullable=False, default=""),  # what the last attempt came to
    Column("reference", String, nullable=False, default=""),  # the target's own name of the message
    Column("facts", Text, nullable=False),  # as JSON (ledger/outbox.py)
    Column("excerpt", Text),  # of the failing step's log, redacted; NULL: not read yet
    Column("excerpt_note", String, nullable=False, default=""),
)
Index("outbox_open", outbox.c.target, outbox.c.id, sqlite_where=text("state <= 2"),
      postgresql_where=text("state <= 2"))  # fmt: skip
Index("outbox_given_up", outbox.c.target, sqlite_where=text("state >= 5"),
      postgresql_where=text("state >= 5"))  # fmt: skip
Index("outbox_thread", outbox.c.target, outbox.c.thread, outbox.c.id)
Index("outbox_created", outbox.c.server, outbox.c.created)

alerts = Table(
    "alerts",
    metadata,
    Column("target", String, primary_key=True),
    Column("labels", String, primary_key=True),  # its identity there, as JSON
    Column("repo_id", BigInteger, nullable=False),
    Column("ref_class", String, nullable=False),
    Column("epoch", Integer, nullable=False),  # which of the ref class's incidents
    Column("opened", Float, nullable=False),  # our clock, here and below
    Column("resolved", Float, nullable=False, default=0.0),  # 0 while it is open
    Column("annotations", Text, nullable=False),  # as JSON
    Column("url", String, nullable=False, default=""),
    Column("taken", Text, nullable=False, default="{}"),  # {address: when it took the resolve}, as JSON
    comment="What an Alertmanager is told, until it surely knows that it is over.",
)

mutes = Table(
    "mutes",
    metadata,
    Column("server", String, primary_key=True),
    Column("repo", String, primary_key=True),  # empty: the whole server
    Column("until", Float, nullable=False),  # our clock
)
