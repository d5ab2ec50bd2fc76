"""Write metrics in Prometheus' text format, version 0.0.4. The file and the page both use it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Sample(NamedTuple):
    """One value. `suffix` is what a histogram adds to the name: _bucket, _sum or _count."""

    labels: Mapping[str, str]
    value: float
    suffix: str = ""


class Family(NamedTuple):
    """A metric with its samples. `kind` is gauge, counter or histogram."""

    name: str
    kind: str
    help: str
    samples: Sequence[Sample]


def text(families: Iterable[Family]) -> str:
    """Return the text of all metrics."""
    return "".join(f"{line}\n" for family in families for line in _lines(family))


def sample_line(name: str, labels: Mapping[str, str], value: float) -> str:
    """Return the line of one value."""
    pairs = ",".join(f'{label}="{_label_value(given)}"' for label, given in labels.items())
    return f"{name}{{{pairs}}} {number(value)}" if pairs else f"{name} {number(value)}"


def histogram(name: str, help_: str, counts: Mapping[float, int], total: int, seconds: float) -> Family:
    """Return a histogram. `counts` are the values up to each bound, cumulative."""
    samples = [Sample({"le": number(bound)}, count, "_bucket") for bound, count in sorted(counts.items())]
    samples += [Sample({"le": "+Inf"}, total, "_bucket"), Sample({}, seconds, "_sum"), Sample({}, total, "_count")]
    return Family(name, "histogram", help_, samples)


def number(value: float) -> str:
    """Return a value as Prometheus reads it."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(float(value))


def _lines(family: Family) -> Iterable[str]:
    yield f"# HELP {family.name} {_escaped(family.help)}"
    yield f"# TYPE {family.name} {family.kind}"
    for sample in family.samples:
        yield sample_line(family.name + sample.suffix, sample.labels, sample.value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _label_value(text: str) -> str:
    return _escaped(text).replace('"', '\\"')
