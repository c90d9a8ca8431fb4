"""The page /metrics: samples become bytes when they change, and a scrape only collects them.

Every key (a repo of a server, say) owns one chunk of bytes for each family. A scrape gathers references
to the chunks, so it costs neither a rendering nor a second copy of the page.
"""

import struct
import threading
from array import array
from bisect import bisect_left
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain
from typing import Protocol

from isal import isal_zlib
from prometheus_client import Metric as RegistryFamily
from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from exporter.chunks import Chunks, Renderer, created_header, header, sample_names
from exporter.metrics import METRICS, Group, Sample

SLICE = 256 * 1024
"""About how many bytes of a page are handed to the network at a time."""
SERIES = METRICS["ci_exporter_series"]
GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
RAW_DEFLATE = -15
LEVEL = 1


class Families(Protocol):
    """What a prometheus_client registry is here: the exporter's own counters, read at each scrape."""

    def collect(self) -> Iterable[RegistryFamily]:
        """Every family with its samples."""
        ...


@dataclass(frozen=True, slots=True)
class Body:
    """The bytes of one answer, joined slice by slice while they are sent; never changes."""

    parts: Sequence[bytes]
    cuts: Sequence[int]
    """Where the slices end, as places in `parts`."""
    length: int
    tail: bytes = b""
    """The last slice, which every scrape has of its own."""

    @classmethod
    def of(cls, parts: Sequence[bytes]) -> "Body":
        """Slices of about `SLICE` bytes; a part is never divided."""
        ends = array("Q", accumulate(map(len, parts)))
        length = ends[-1] if ends else 0
        cuts = {bisect_left(ends, end) + 1 for end in range(SLICE, length, SLICE)}
        return cls(parts, sorted(cuts | {len(parts)} - {0}), length)

    def with_tail(self, tail: bytes) -> "Body":
        """This body with a last slice."""
        return replace(self, tail=tail)

    def __iter__(self) -> Iterator[bytes]:
        start = 0
        for end in self.cuts:
            yield b"".join(self.parts[start:end])
            start = end
        if self.tail:
            yield self.tail

    def __len__(self) -> int:
        return self.length + len(self.tail)

    def __bytes__(self) -> bytes:
        return b"".join(self)


@dataclass(frozen=True, slots=True)
class _Row:
    """The chunks of one key in the order of the families."""

    server: Hashable
    text: Chunks
    openmetrics: Chunks


@dataclass(slots=True)
class _Content:
    """All of a page but its tail, at one version and in one format."""

    version: int
    families: dict[str, list[bytes]]
    """Header and chunks by family; a family without a sample is left out."""
    series: dict[str, int]
    body: Body = field(init=False)
    deflated: Body | None = None
    """The body, deflated up to a byte's end, without the mark of a last block."""
    checksum: int = 0

    def __post_init__(self) -> None:
        self.body = Body.of(list(chain.from_iterable(self.families.values())))


class Page:
    """Chunks by key and family, and the bytes of a scrape; every method may be called from any thread.

    `disabled` names families that are left out, `created` adds the `_created` lines, and `registry` has
    the exporter's own counters, with which the page ends.
    """

    def __init__(
        self,
        *,
        disabled: frozenset[str] = frozenset(),
        created: bool = False,
        registry: Families | None = None,
    ) -> None:
        self._disabled = disabled
        self._created = created
        self._registry = registry
        self._metrics = [m for m in METRICS.values() if m is not SERIES and m.name not in disabled]
        self._renderer = Renderer(self._metrics, created=created)
        self._names = {name: m.name for m in METRICS.values() for name in sample_names(m)}
        self._lock = threading.Lock()
        self._building = threading.Lock()
        self._version = 0
        self._rows: dict[Hashable, _Row] = {}
        self._hidden: set[Hashable] = set()
        self._lines = [0] * len(self._metrics)
        self._contents: dict[bool, _Content] = {}

    def put(self, key: Hashable, samples: Iterable[Sample]) -> None:
        """Show these samples, and only these, for `key`: `(server, repo)`, or anything hashable."""
        text, openmetrics = self._renderer.render(samples)
        row = _Row(_server_of(key), text, openmetrics)
        counts = self._count(row)
        with self._lock:
            old = self._rows.get(key)
            if old == row:
                return
            self._rows[key] = row
            self._replace(self._count(old) if old else [], counts)

    def drop(self, key: Hashable) -> None:
        """Show nothing more of `key`."""
        with self._lock:
            old = self._rows.pop(key, None)
            if old:
                self._replace(self._count(old), [])

    def hide(self, server: Hashable) -> None:
        """Withdraw what is true now of all keys of a server; its counters stay."""
        with self._lock:
            if server not in self._hidden:
                self._hidden.add(server)
                self._version += 1

    def show(self, server: Hashable) -> None:
        """Undo `hide`."""
        with self._lock:
            if server in self._hidden:
                self._hidden.remove(server)
                self._version += 1

    def series(self) -> dict[str, int]:
        """Lines on the page by family, without those of the registry."""
        return dict(self._content(openmetrics=False).series)

    def render(self, openmetrics: bool, gzip: bool, names: frozenset[str] | None = None) -> Body:
        """The answer to a scrape; `names` restricts it to families, named by themselves or by a sample."""
        content = self._content(openmetrics=openmetrics)
        tail = self._tail(content, openmetrics, names)
        if names is not None:
            wanted = {self._names[name] for name in names if name in self._names}
            content = _Content(0, {f: parts for f, parts in content.families.items() if f in wanted}, {})
        if not gzip:
            return content.body.with_tail(tail)
        with self._building:
            if content.deflated is None:
                content.deflated, content.checksum = _deflate(content.body)
        return content.deflated.with_tail(_gzip_end(content, tail))

    def _replace(self, old: Sequence[int], new: Sequence[int]) -> None:
        for place, lines in enumerate(new):
            self._lines[place] += lines
        for place, lines in enumerate(old):
            self._lines[place] -= lines
        self._version += 1

    def _count(self, row: _Row) -> list[int]:
        """Lines of a row by family."""
        return [chunk.count(b"\n") for chunk in row.openmetrics]

    def _content(self, *, openmetrics: bool) -> _Content:
        with self._building:
            with self._lock:
                version = self._version
                content = self._contents.get(openmetrics)
                if content and content.version == version:
                    return content
                rows = list(self._rows.values())
                lines = list(self._lines)
                hidden = frozenset(self._hidden)
            content = self._build(version, rows, lines, hidden, openmetrics)
            self._contents[openmetrics] = content
            return content

    def _build(
        self, version: int, rows: list[_Row], lines: list[int], hidden: frozenset[Hashable], openmetrics: bool
    ) -> _Content:
        shown = [row for row in rows if row.server not in hidden] if hidden else rows
        withdrawn = [row for row in rows if row.server in hidden] if hidden else []
        every = _columns(rows, openmetrics)
        current = _columns(shown, openmetrics) if hidden else every
        families: dict[str, list[bytes]] = {}
        series: dict[str, int] = {}
        size = len(self._metrics)
        for place, metric in enumerate(self._metrics):
            now = metric.group is Group.NOW
            columns = current if now else every
            if not columns:
                continue
            chunks = list(filter(None, columns[place]))
            if not chunks:
                continue
            families[metric.name] = [header(metric, openmetrics=openmetrics), *chunks]
            series[metric.name] = lines[place] - (
                sum(row.openmetrics[place].count(b"\n") for row in withdrawn) if now else 0
            )
            begun = list(filter(None, columns[size + place])) if len(columns) > size else []
            if begun:
                families[metric.name] += [created_header(metric), *begun]
        return _Content(version, families, series)

    def _tail(self, content: _Content, openmetrics: bool, names: frozenset[str] | None) -> bytes:
        """The registry's families and the count of series by family, rendered for this scrape."""
        families = list(self._registry_families(content.series))
        counts = content.series | {_shown_name(f): len(f.samples) for f in families}
        if SERIES.name not in self._disabled:
            own = GaugeMetricFamily(SERIES.name, SERIES.help, labels=SERIES.labels)
            for name, lines in (counts | {SERIES.name: len(counts) + 1}).items():
                own.add_metric([name], lines)
            families.insert(0, own)
        if names is not None:
            families = [f for f in families if names & {f.name, _shown_name(f), *(s.name for s in f.samples)}]
        generate = generate_openmetrics if openmetrics else generate_latest
        return generate(_Listed(families))

    def _registry_families(self, taken: dict[str, int]) -> Iterator[RegistryFamily]:
        """The registry's families that the keys do not have; `_created` only where it is asked for."""
        for family in self._registry.collect() if self._registry else ():
            name = _shown_name(family)
            if name in taken or name in self._disabled:
                continue
            if not self._created:
                family.samples = [s for s in family.samples if s.name != f"{family.name}_created"]
            if family.samples:
                yield family


@dataclass(frozen=True, slots=True)
class _Listed:
    """A registry of families that are there already."""

    families: list[RegistryFamily]

    def collect(self) -> Iterable[RegistryFamily]:
        return self.families


def _server_of(key: Hashable) -> Hashable:
    return key[0] if isinstance(key, tuple) and key else key


def _columns(rows: list[_Row], openmetrics: bool) -> list[Chunks]:
    """The chunks of every family, from those of every key."""
    return list(zip(*(row.openmetrics if openmetrics else row.text for row in rows), strict=True))


def _shown_name(family: RegistryFamily) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def _deflate(body: Body) -> tuple[Body, int]:
    """A body deflated so that a last block can be put behind it, and its CRC-32."""
    deflater = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, RAW_DEFLATE)
    parts, checksum = [GZIP_HEADER], 0
    for part in body:
        checksum = isal_zlib.crc32(part, checksum)
        parts.append(deflater.compress(part))
    parts.append(deflater.flush(isal_zlib.Z_FULL_FLUSH))
    return Body.of(parts), checksum


def _gzip_end(content: _Content, tail: bytes) -> bytes:
    """What makes of a deflated body and a tail one gzip member (RFC 1952)."""
    deflater = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, RAW_DEFLATE)
    checksum = isal_zlib.crc32(tail, content.checksum)
    size = (len(content.body) + len(tail)) & 0xFFFFFFFF
    return deflater.compress(tail) + deflater.flush() + struct.pack("<II", checksum, size)
