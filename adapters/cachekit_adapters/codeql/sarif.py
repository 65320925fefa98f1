"""SARIF 2.1.0: how severe each finding is, which its own text seldom says, and whether a scan was whole.

The numbers of sections are those of the OASIS standard "Static Analysis Results Interchange Format 2.1.0".
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cachekit import UsageError

LEVELS: Final[tuple[str, ...]] = ("error", "warning", "note", "none")
_UNSAID: Final = "warning"
"""What a result and its rule leave unsaid (3.27.10)."""
_BANDS: Final = ((9.0, "critical"), (7.0, "high"), (4.0, "medium"), (0.0, "low"))
"""GitHub's names for the CVSS-like number in a rule's property `security-severity`: each from this score on, low above 0."""
_GONE: Final = ("absent",)
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Summary:
    """How many findings of each severity; what was suppressed or is gone since the baseline counts in neither."""

    levels: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(LEVELS, 0))
    security: Mapping[str, int] = field(default_factory=lambda: {name: 0 for _, name in _BANDS})
    rules: Mapping[str, int] = field(default_factory=dict)
    suppressed: int = 0

    @property
    def errors(self) -> int:
        return self.levels["error"]

    @property
    def total(self) -> int:
        return sum(self.levels.values())


def summary(sarif: str | os.PathLike[str] | Json) -> Summary:
    """What a SARIF file, or its JSON, has found. Raises UsageError for what is no SARIF 2.1.0."""
    levels: dict[str, int] = dict.fromkeys(LEVELS, 0)
    security, rules, suppressed = {name: 0 for _, name in _BANDS}, dict[str, int](), 0
    for run in _runs(sarif):
        for result in _list(run, "results"):
            if result.get("baselineState") in _GONE:
                continue
            if _suppressed(result):
                suppressed += 1
                continue
            rule = _rule(run, result)
            name = str(result.get("ruleId") or rule.get("id") or "")
            rules[name] = rules.get(name, 0) + 1
            levels[_level(run, result, rule)] += 1
            if band := _band(result, rule):
                security[band] += 1
    return Summary(levels, security, dict(sorted(rules.items())), suppressed)


def whole(path: Path) -> bool:
    """Whether a file is SARIF of scans that say of none of their invocations that it failed."""
    try:
        runs = _runs(path)
    except UsageError:
        return False
    invocations = [one for run in runs for one in _list(run, "invocations")]
    return bool(runs) and all(one.get("executionSuccessful", True) is not False for one in invocations)


def _runs(sarif: str | os.PathLike[str] | Json) -> list[Json]:
    try:
        document = sarif if isinstance(sarif, Mapping) else json.loads(Path(sarif).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{sarif!r} is no SARIF file: {error}") from error
    if (
        not isinstance(document, Mapping)
        or document.get("version") != "2.1.0"
        or not isinstance(document.get("runs"), list)
    ):
        raise UsageError("this is no SARIF 2.1.0, which has a version and a list of runs")
    return [run for run in document["runs"] if isinstance(run, Mapping)]


def _level(run: Json, result: Json, rule: Json) -> str:
    """Said by the result; else, for a failure, by the invocation's override, the rule, or nobody (3.27.10)."""
    said = result.get("level")
    if said is None and result.get("kind", "fail") != "fail":
        said = "none"
    if said is None:
        said = _overridden(run, result, rule) or _map(rule, "defaultConfiguration").get("level")
    return said if said in LEVELS else _UNSAID


def _overridden(run: Json, result: Json, rule: Json) -> Any:
    """What the invocation that made the result was told of its rule (3.20.5), or None."""
    index = _map(result, "provenance").get("invocationIndex", -1)
    for override in _list(_at(_list(run, "invocations"), index), "ruleConfigurationOverrides"):
        descriptor = _map(override, "descriptor")
        by_index = "index" in descriptor and _at(_rules(run, descriptor), descriptor["index"]) is rule
        if by_index or ("id" in descriptor and descriptor["id"] == rule.get("id")):
            return _map(override, "configuration").get("level")
    return None


def _rule(run: Json, result: Json) -> Json:
    """The rule's descriptor, by its index, else by its id; of the driver, or of the extension that it names (3.27.7)."""
    reference = _map(result, "rule")
    rules = _rules(run, reference)
    found = _at(rules, reference.get("index", result.get("ruleIndex", -1)))
    name = reference.get("id") or result.get("ruleId")
    if found or name is None:
        return found
    # `CA1000/1` is a case of the rule `CA1000` (3.52.4).
    names = (name, str(name).rpartition("/")[0])
    return next((rule for wanted in names for rule in rules if wanted and rule.get("id") == wanted), {})


def _rules(run: Json, reference: Json) -> Sequence[Json]:
    tool, component = _map(run, "tool"), _map(reference, "toolComponent")
    extension = _at(_list(tool, "extensions"), component.get("index", -1))
    return _list(extension or _map(tool, "driver"), "rules")


def _band(result: Json, rule: Json) -> str:
    for properties in (_map(result, "properties"), _map(rule, "properties")):
        try:
            score = float(properties["security-severity"])
        except (KeyError, TypeError, ValueError):
            continue
        return next((name for least, name in _BANDS if score >= least and score > 0), "")
    return ""


def _suppressed(result: Json) -> bool:
    """One that nobody rejected or still looks at (3.27.23)."""
    states = [one.get("status", "accepted") for one in _list(result, "suppressions")]
    return bool(states) and all(state == "accepted" for state in states)


def _map(value: Json, name: str) -> Json:
    found = value.get(name)
    return found if isinstance(found, Mapping) else {}


def _list(value: Json, name: str) -> list[Json]:
    found = value.get(name)
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def _at(values: Sequence[Json], index: Any) -> Json:
    return values[index] if type(index) is int and 0 <= index < len(values) else {}
