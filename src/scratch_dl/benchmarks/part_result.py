"""The result of one part: figures by name, their goals, and a table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from scratch_dl.benchmarks.goals import goal_of
from scratch_dl.system.timing import Quartiles
from scratch_dl.terminal.text_table import TextTable


@dataclass(frozen=True)
class Comparison:
    """The hand-written code compared with a rival that does the same.

    Attributes:
        name: of its metrics, which end in _own, _rival and _ratio.
        label: what is done, in tables.
        rival: name of the other side, in tables.
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
    def of(
        cls, name: str, label: str, rival: str, own: Sequence[float], theirs: Sequence[float], scale: float = 1.0
    ) -> "Comparison":
        """Compare values in pairs, each multiplied by `scale` to be in the table's unit."""
        mine, other = (Quartiles.from_values([value * scale for value in values]) for values in (own, theirs))
        return cls(name, label, rival, mine, other, Quartiles.from_ratios(own, theirs))

    def metrics(self) -> dict[str, float]:
        """The medians, by name."""
        medians = {"own": self.own, "rival": self.theirs, "ratio": self.ratio}
        return {f"{self.name}_{quantity}": quartiles.median for quantity, quartiles in medians.items()}


@dataclass(frozen=True)
class PartResult:
    """The result of one part at one number of threads.

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
        return {
            "part": self.part,
            "threads": self.threads,
            "figures": dict(self.figures),
            "goals": self.goals(),
            "records": [dict(record) for record in self.records],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class ComparisonTable:
    """The table of a part that is nothing but comparisons.

    Attributes:
        part: its name.
        title, legend: of the table.
        unit: of the figures.
        second: heads the column of the comparisons' rivals.
        ratio: heads the column of the ratios.
    """

    part: str
    title: str
    legend: str
    unit: str
    second: str = "rival"
    ratio: str = "own / PyTorch"

    def result(self, threads: int, comparisons: Sequence[Comparison], notes: Sequence[str] = ()) -> PartResult:
        """The part's result at a number of threads."""
        figures = {name: value for comparison in comparisons for name, value in comparison.metrics().items()}
        units = f"own\n{self.unit}", f"PyTorch\n{self.unit}", f"{self.ratio}\n(quartiles)"
        rows = [_row(comparison) for comparison in comparisons]
        table = TextTable(self.title, self.legend, 2, ("", self.second, *units, "goal"), rows)
        records = [asdict(comparison) for comparison in comparisons]
        return PartResult(self.part, threads, figures, table, records, comparisons, notes)


def _row(comparison: Comparison) -> tuple[str, ...]:
    medians = (format_number(quartiles.median) for quartiles in (comparison.own, comparison.theirs))
    goal = goal_text(f"{comparison.name}_ratio", comparison.ratio.median)
    return comparison.label, comparison.rival, *medians, format_quartiles(comparison.ratio), goal


def goal_text(name: str, value: float) -> str:
    """The goal of a figure and whether it is reached, or nothing."""
    return goal.goal_text(value) if (goal := goal_of(name)) else ""


def format_number(value: float) -> str:
    """A number with two decimals, with one from 10 up, and with none from 100 up."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def format_quartiles(quartiles: Quartiles) -> str:
    """The median and, in brackets, the other two."""
    return f"{quartiles.median:.2f} ({quartiles.low:.2f}-{quartiles.high:.2f})"
