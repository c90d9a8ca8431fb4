"""Samples as lines of text 0.0.4 and of OpenMetrics 1.0.

Formats: https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

from exporter.metrics import Exemplar, Histogram, Metric, Sample

EXEMPLAR_RUNES = 128
"""How long the names and values of an exemplar's labels may be together."""
HISTOGRAM_PARTS = ("_bucket", "_count", "_sum")

Chunks = tuple[bytes, ...]


def family_name(metric: Metric) -> str:
    """The name in OpenMetrics: a counter's without `_total`."""
    return metric.name.removesuffix("_total") if metric.type == "counter" else metric.name


def sample_names(metric: Metric) -> Iterator[str]:
    """Every name by which the family or one of its samples can be asked for."""
    yield metric.name
    yield family_name(metric)
    if metric.type != "gauge":
        yield f"{family_name(metric)}_created"
    if metric.type == "histogram":
        yield from (metric.name + part for part in HISTOGRAM_PARTS)


def header(metric: Metric, *, openmetrics: bool) -> bytes:
    """HELP and TYPE of a family."""
    text = metric.help.replace("\\", "\\\\").replace("\n", "\\n")
    if openmetrics:
        text = text.replace('"', '\\"')
    name = family_name(metric) if openmetrics else metric.name
    return f"# HELP {name} {text}\n# TYPE {name} {metric.type}\n".encode()


def created_header(metric: Metric) -> bytes:
    """HELP and TYPE of the gauge by which text 0.0.4 says when a family's series began."""
    name = f"{family_name(metric)}_created"
    text = metric.help.replace("\\", "\\\\").replace("\n", "\\n")
    return f"# HELP {name} {text}\n# TYPE {name} gauge\n".encode()


class Renderer:
    """Renders the samples of a key, chunk by chunk in the order of `metrics`; others are passed over.

    With `created` the text has one more chunk for each family: when its series began.
    """

    def __init__(self, metrics: Sequence[Metric], *, created: bool) -> None:
        self._forms = {m.name: Form.of(m, place) for place, m in enumerate(metrics)}
        self._created = created

    def render(self, samples: Iterable[Sample]) -> tuple[Chunks, Chunks]:
        """Chunks in text and in OpenMetrics: the same objects wherever they do not differ."""
        size = len(self._forms)
        text: list[list[str]] = [[] for _ in range(size)]
        begun: list[list[str]] = [[] for _ in range(size)]
        own: dict[int, list[str]] = {}
        """Families that read otherwise in OpenMetrics."""
        labelled: dict[tuple[str, ...], dict[tuple[str, ...], str]] = {}
        metric, form, cache = None, None, {}
        for sample in samples:
            if sample.metric is not metric:
                metric = sample.metric
                form = self._forms.get(metric.name)
                cache = labelled.setdefault(metric.labels, {})
            if form is None:
                continue
            labels = cache.get(sample.labels)
            if labels is None:
                labels = cache[sample.labels] = form.labels(sample.labels)
            lines = text[form.place]
            value = sample.value
            if isinstance(value, Histogram):
                line = form.histogram(labels, value)
                exemplars = form.with_exemplars(line, value.exemplars) if value.exemplars else line
            else:
                line = exemplars = form.line % (labels, number(value))
            begins = ""
            if self._created and form.begins and sample.created > 0:
                begins = form.begins % (labels, number(sample.created))
                begun[form.place].append(begins)
            if form.place in own:
                own[form.place].append(exemplars + begins)
            elif begins or exemplars is not line:
                own[form.place] = [*lines, exemplars + begins]
            lines.append(line)
        plain = tuple(map(_encoded, text))
        openmetrics = plain
        if own:
            openmetrics = tuple(
                _encoded(own[place]) if place in own else chunk for place, chunk in enumerate(plain)
            )
        if self._created:
            plain += tuple(map(_encoded, begun))
        return plain, openmetrics


@dataclass(frozen=True, slots=True)
class Form:
    """The lines of one family, with places for labels and values."""

    place: int
    pairs: str
    line: str
    begins: str
    """The `_created` line; empty for gauges."""

    @classmethod
    def of(cls, metric: Metric, place: int) -> "Form":
        pairs = ",".join(f'{name}="%s"' for name in metric.labels)
        braces = "{%s}" if pairs else "%s"
        begins = "" if metric.type == "gauge" else f"{family_name(metric)}_created{braces} %s\n"
        if metric.type != "histogram":
            return cls(place, pairs, f"{metric.name}{braces} %s\n", begins)
        comma = "," if pairs else ""
        bounds = [*(f'le="{number(bound)}"' for bound in metric.buckets), 'le="+Inf"']
        buckets = [f"{metric.name}_bucket{{%s{comma}{bound}}} %d.0\n" for bound in bounds]
        ends = f"{metric.name}_count{braces} %d.0\n{metric.name}_sum{braces} %s\n"
        return cls(place, pairs, "".join(buckets) + ends, begins)

    def labels(self, values: tuple[str, ...]) -> str:
        """Names and values, as they stand between the braces."""
        text = self.pairs % values
        if "\\" in text or "\n" in text or "\0" in text or text.count('"') != 2 * len(values):
            return self.pairs % tuple(map(_escaped, values))
        return text

    def histogram(self, labels: str, value: Histogram) -> str:
        """Buckets cumulated, count and sum."""
        totals = tuple(accumulate(value.counts))
        pairs = chain.from_iterable((labels, total) for total in totals)
        return self.line % (*pairs, labels, totals[-1], labels, number(value.sum))

    @staticmethod
    def with_exemplars(text: str, exemplars: dict[int, Exemplar]) -> str:
        """The lines of a histogram with the exemplars behind their buckets."""
        lines = text.split("\n")
        for bucket, exemplar in exemplars.items():
            lines[bucket] += _exemplar(exemplar)
        return "\n".join(lines)


def number(value: float) -> str:
    """A value as both formats write it."""
    if math.isfinite(value):
        return repr(float(value))
    if math.isnan(value):
        return "NaN"
    return "+Inf" if value > 0 else "-Inf"


def _exemplar(exemplar: Exemplar) -> str:
    """An exemplar's end of a line: without `url` where it is too long, empty where it still is."""
    for labels in (exemplar.labels, [pair for pair in exemplar.labels if pair[0] != "url"]):
        if sum(len(name) + len(value) for name, value in labels) <= EXEMPLAR_RUNES:
            pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
            return f" # {{{pairs}}} {number(exemplar.value)} {number(exemplar.time)}"
    return ""


def _escaped(value: str) -> str:
    """A label's value; a NUL, at which Prometheus stops reading, is replaced."""
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"').replace("\0", "\ufffd")


def _encoded(lines: list[str]) -> bytes:
    """UTF-8; halves of surrogate pairs, which JSON can carry, become `?`."""
    return "".join(lines).encode("utf-8", "replace") if lines else b""
