"""What was compared between the splits of a dataset, how close they come, and which rows leak."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass

from data_gen.leaks.near_duplicates import Measure
from plumbing.errors import UserError

_SHOWN = 3  # leaks of each check, and rows of each split, that the line names; all are counted


@dataclass(frozen=True)
class Row:
    split: str
    id: str
    text: str  # its beginning


@dataclass(frozen=True)
class Closest:
    """The most alike texts of two splits."""

    similarity: float
    counts: bool  # False: each holds a name of its own concept, so their similarity is allowed
    rows: tuple[Row, Row]


@dataclass(frozen=True)
class Leak:
    what: str  # one line that names the rows
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Check:
    name: str
    compared: int  # names, rows or distinct texts
    found: int  # leaks
    leaks: tuple[Leak, ...]  # the first of them
    measure: Measure | None = None  # says from which similarity two texts are a leak; None: only if they are equal
    closest: Closest | None = None  # None also if no two texts have enough in common to be compared


@dataclass(frozen=True)
class Certificate:
    clean: bool
    concepts: int
    names: int
    rows: int
    checks: tuple[Check, ...]

    def to_json(self) -> str:
        """The text of certificate.json."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n"

    def line(self) -> str:
        """What was compared and how close the splits come; or which rows leak."""
        if not self.clean:
            shown = [leak.what for check in self.checks for leak in check.leaks[:_SHOWN]]
            found = sum(check.found for check in self.checks)
            more = f"; and {found - len(shown):,} more" if found > len(shown) else ""
            return f"leak certificate: {found:,} leak{'s' if found > 1 else ''}: {'; '.join(shown)}{more}"
        texts = f"{self.rows:,} requests and {self.rows:,} responses"
        compared = f"{self.concepts:,} concepts' {self.names:,} names, {texts}"
        closest = [_closeness(check, check.measure) for check in self.checks if check.measure and check.compared]
        return "; ".join([f"leak certificate: clean: {compared}", *closest])


def check(certificate: Certificate) -> None:
    """Raises UserError with the certificate's line unless it is clean."""
    if not certificate.clean:
        cure = "give the names of one concept one group (same_as), or change these rows"
        raise UserError(f"{certificate.line()}; {cure}")


def _closeness(check: Check, measure: Measure) -> str:
    name, closest = check.name.removeprefix("near "), check.closest
    if closest is None:
        return f"no two {name} have enough in common to be compared"
    limit = f"limit {measure.limit}" + ("" if closest.counts else " but for two concepts' own names, as these are")
    return f"closest {name} {closest.similarity:.2f} ({limit}): {listed(closest.rows)}"


def listed(rows: Sequence[Row]) -> str:
    """
    >>> listed([Row("train", "a/1", ""), Row("train", "a/2", ""), Row("test", "b/1", "")])
    "rows 'a/1', 'a/2' train and 'b/1' test"
    """
    parts = []
    for split, members in itertools.groupby(rows, key=lambda row: row.split):
        ids = [f"'{row.id}'" for row in members]
        more = f" and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else ""
        parts.append(f"{', '.join(ids[:_SHOWN])}{more} {split}")
    return f"row{'s' if len(rows) > 1 else ''} {' and '.join(parts)}"
