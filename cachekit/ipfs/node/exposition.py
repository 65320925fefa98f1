"""Prometheus's text format, version 0.0.4."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_NEVER: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Family(NamedTuple):
    """The samples of one name: (labels, value) pairs. A counter's name ends with `_total`; units are seconds and bytes."""

    name: str
    kind: Literal["counter", "gauge"]
    text: str
    samples: Sequence[tuple[Mapping[str, str], float]]


def gauge(name: str, text: str, value: float, **labels: str) -> Family:
    """A family of one sample."""
    return Family(name, "gauge", text, [(labels, value)])


def counter(name: str, text: str, value: float) -> Family:
    """A family of one sample without labels."""
    return Family(name, "counter", text, [({}, value)])


def exposed(families: Iterable[Family]) -> str:
    """The families as Prometheus reads them."""
    return "".join(map(_family, families))


def _family(family: Family) -> str:
    head = f"# HELP {family.name} {family.text}\n# TYPE {family.name} {family.kind}\n"
    return head + "".join(f"{family.name}{_labels(labels)} {_number(value)}\n" for labels, value in family.samples)


def _labels(labels: Mapping[str, str]) -> str:
    said = ",".join(f'{name}="{value.translate(_NEVER)}"' for name, value in labels.items())
    return f"{{{said}}}" if said else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
