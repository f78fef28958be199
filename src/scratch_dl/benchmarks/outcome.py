"""What one part found: figures by name, their goals, and a table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from scratch_dl.benchmarks.goals import goal_of
from scratch_dl.system.timing import Quartiles
from scratch_dl.terminal.text_table import TextTable


@dataclass(frozen=True)
class Comparison:
    """The hand-written code beside a rival that does the same.

    Attributes:
        name: of its metrics, which end in _own, _rival and _ratio.
        label: what is done, in tables.
        rival: with whom it is compared, in tables.
        own, theirs: each one's figures, in the unit of the table.
        ratio: own / theirs, pair by pair.
    """

    name: str
    label: str
    rival: str
    own: Quartiles
    theirs: Quartiles
    ratio: Quartiles

    @classmethod
    def of(cls, name: str, label: str, rival: str, own: Sequence[float], theirs: Sequence[float],
           scale: float = 1.0) -> "Comparison":  # fmt: skip
        """Of values in pairs, each multiplied by `scale` to be in the table's unit."""
        mine, other = (Quartiles.of([value * scale for value in values]) for values in (own, theirs))
        return cls(name, label, rival, mine, other, Quartiles.of_ratio(own, theirs))

    def metrics(self) -> dict[str, float]:
        """The medians, by name."""
        medians = {"own": self.own, "rival": self.theirs, "ratio": self.ratio}
        return {f"{self.name}_{quantity}": quartiles.median for quantity, quartiles in medians.items()}


@dataclass(frozen=True)
class Outcome:
    """What one part found at one number of threads.

    Attributes:
        part: its name.
        threads: torch's, and the kernels'.
        figures: numbers by name, each of which may have a goal.
        table: for the reader.
        records: every number with its spread, for the JSON file.
        comparisons: for the figure.
        notes: what was left out, and why; a sentence each.
    """

    part: str
    threads: int
    figures: Mapping[str, float]
    table: TextTable
    records: Sequence[Mapping[str, Any]]
    comparisons: Sequence[Comparison] = ()
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def titled(self) -> TextTable:
        """The table, its title with the number of threads."""
        return replace(self.table, title=f"{self.table.title}, threads: {self.threads}")

    def goals(self) -> list[dict[str, Any]]:
        """Every figure that has a goal: name, value, the goal and whether it is reached."""
        found = []
        for name, value in self.figures.items():
            if goal := goal_of(name):
                rule = f"{goal.sign} {goal.bound:g}"
                found.append({"figure": name, "value": value, "goal": rule, "reached": goal.reached(value)})
        return found

    def to_json(self) -> dict[str, Any]:
        """Everything, as numbers, texts, lists and dicts."""
        return {"part": self.part, "threads": self.threads, "figures": dict(self.figures), "goals": self.goals(),
                "records": [dict(record) for record in self.records], "notes": list(self.notes)}  # fmt: skip


def compared(part: str, title: str, legend: str, unit: str, threads: int, comparisons: Sequence[Comparison],
             notes: Sequence[str] = (), second: str = "rival", ratio: str = "own / PyTorch") -> Outcome:  # fmt: skip
    """The outcome of a part that is nothing but comparisons; `second` and `ratio` head the columns of these names."""
    figures = {name: value for one in comparisons for name, value in one.metrics().items()}
    head = ("", second, f"own\n{unit}", f"PyTorch\n{unit}", f"{ratio}\n(quartiles)", "goal")
    rows = [
        (one.label, one.rival, number(one.own.median), number(one.theirs.median), spread(one.ratio),
         told(f"{one.name}_ratio", one.ratio.median))
        for one in comparisons
    ]  # fmt: skip
    records = [asdict(one) for one in comparisons]
    return Outcome(part, threads, figures, TextTable(title, legend, 2, head, rows), records, comparisons, notes)


def told(name: str, value: float) -> str:
    """The goal of a figure and whether it is reached, or nothing."""
    return goal.told(value) if (goal := goal_of(name)) else ""


def number(value: float) -> str:
    """Three digits at least, none behind the point that say nothing."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(quartiles: Quartiles) -> str:
    """The median and, in brackets, the other two."""
    return f"{quartiles.median:.2f} ({quartiles.low:.2f}-{quartiles.high:.2f})"
