"""The result of a verification: a verdict per module and direction, as text, Markdown, JSON and metrics."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scratch_dl.terminal.text_table import TextTable

if TYPE_CHECKING:
    from scratch_dl.tracking import Run

DIRECTIONS = ("forward", "grad_input", "grad_weight", "grad_bias", "contract")
_COLUMNS = (*DIRECTIONS, "lockstep")
NETWORK = "network"
REPORT = "verification/report.json"
_NAME_WIDTH = 26


@dataclass(frozen=True)
class Finding:
    """One comparison with one witness.

    Attributes:
        module: dotted name in the network, or the class for what is checked of a class.
        direction: one of DIRECTIONS, or "lockstep" of the network.
        check: the witness, as "PyTorch float64" or "linearity".
        error: ||got - expected|| / ||expected||; inf where shapes differ or an exception was raised.
        limit: the band: the largest error that passes.
        abs_error: mean |got - expected|, the paper's measure; NaN where it has no meaning.
        detail: what a person needs to see: the parameter, the shapes, the exception.
    """

    module: str
    direction: str
    check: str
    error: float
    limit: float
    abs_error: float = math.nan
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether the error is within its band; NaN is not."""
        return self.error <= self.limit

    @property
    def strain(self) -> float:
        """The error in units of its band, by which findings are ordered."""
        return math.inf if math.isnan(self.error) else self.error / self.limit


@dataclass(frozen=True)
class DirectionVerdict:
    """All findings on one module and direction.

    Attributes:
        decisive: the first that failed, else the one nearest to its band.
        checks: how many there are.
    """

    decisive: Finding
    checks: int

    @property
    def passed(self) -> bool:
        """Whether every finding passed."""
        return self.decisive.passed


@dataclass(repr=False)
class Report:
    """Findings and the verdicts that follow from them.

    Attributes:
        title: what was verified.
        findings: in the order in which they were made.
        kinds: class of each module, for the table.
        notes: what could not be checked, and why.
        seconds: how long it took.
    """

    title: str
    findings: list[Finding] = field(default_factory=list)
    kinds: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, findings: Iterable[Finding]) -> list[Finding]:
        """Add findings, and return them as a list."""
        fresh = list(findings)
        self.findings += fresh
        return fresh

    def note(self, text: str) -> None:
        """Add a note that something could not be checked, unless it is there already."""
        if text not in self.notes:
            self.notes.append(text)

    @property
    def passed(self) -> bool:
        """Whether there are findings and all of them are within their bands."""
        return bool(self.findings) and all(finding.passed for finding in self.findings)

    @property
    def verdicts(self) -> dict[str, dict[str, DirectionVerdict]]:
        """Module -> direction -> verdict."""
        grouped: dict[str, dict[str, list[Finding]]] = {}
        for finding in self.findings:
            grouped.setdefault(finding.module, {}).setdefault(finding.direction, []).append(finding)
        return {
            module: {direction: DirectionVerdict(_decisive(some), len(some)) for direction, some in directions.items()}
            for module, directions in grouped.items()
        }

    @property
    def failures(self) -> list[Finding]:
        """The decisive finding of each verdict that failed; a single module's before the network's."""
        failed = [v.decisive for row in self.verdicts.values() for v in row.values() if not v.passed]
        return sorted(failed, key=lambda finding: finding.module == NETWORK)

    def metrics(self) -> dict[str, float]:
        """Return `verify/passed`, `verify/checks`, and the `verify/<direction>_rel_err` of most strain of each."""
        verdicts = [v.decisive for row in self.verdicts.values() for v in row.values()]
        worst = {finding.direction: finding for finding in sorted(verdicts, key=lambda finding: finding.strain)}
        return {
            "verify/passed": float(self.passed),
            "verify/checks": len(self.findings),
            **{f"verify/{direction}_rel_err": worst[direction].error for direction in _COLUMNS if direction in worst},
        }

    def artifact_table(self) -> dict[str, Any]:
        """Return a row per module and direction in the form that MLflow shows as a table."""
        columns = ["module", "class", "direction", "passed", "error", "limit", "check", "comparisons"]
        data = [
            [module, self.kinds.get(module, ""), direction, v.passed, *_texts(v.decisive), v.decisive.check, v.checks]
            for module, row in self.verdicts.items()
            for direction, v in row.items()
        ]
        return {"columns": columns, "data": data}

    @property
    def headline(self) -> str:
        """The outcome in one line."""
        verdicts = sum(len(row) for row in self.verdicts.values())
        failed = len(self.failures)
        outcome = f"{failed} of {verdicts} verdicts FAILED" if failed else f"all {verdicts} verdicts passed"
        if not self.findings:
            outcome = "nothing could be checked"
        return f"{self.title}: {outcome} ({len(self.findings):,} comparisons in {self.seconds:.1f} s)"

    def table(self) -> Table:
        """One row per module, one column per direction; a cell has the error nearest to its band."""
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("module", overflow="fold")
        for direction in DIRECTIONS:
            table.add_column(direction, justify="right", no_wrap=True)
        for module, row in self.verdicts.items():
            kind = self.kinds.get(module, "")
            short = kind in ("", module) or len(module) + len(kind) > _NAME_WIDTH
            table.add_row(
                module if short else f"{module} {kind}", *(self._cell(row, direction) for direction in DIRECTIONS)
            )
        return table

    def _cell(self, row: Mapping[str, DirectionVerdict], direction: str) -> Text:
        some = [row[name] for name in (direction, *(["lockstep"] if direction == "contract" else [])) if name in row]
        if not some:
            return Text("")
        worst = max(some, key=lambda verdict: verdict.decisive.strain)
        error = f"{worst.decisive.error:.0e}" if worst.decisive.error else "0"
        return Text(error, style="green") if worst.passed else Text(f"FAIL {error}", style="bold red")

    def lines(self) -> list[str]:
        """One line per failure, then one per note."""
        failures = [finding for finding in self.failures if finding.module != NETWORK]
        failed = [f"FAIL {finding.module} {finding.direction}: {_describe(finding)}" for finding in failures]
        if whole := [finding for finding in self.failures if finding.module == NETWORK]:
            # One mistake makes the network fail in many ways; the lock-step's finding names the place, and comes last.
            failed.append(
                f"FAIL {NETWORK} ({', '.join(finding.direction for finding in whole)}): {_describe(whole[-1])}"
            )
        return failed + [f"note: {note}" for note in self.notes]

    def show(self, console: Console | None = None) -> None:
        """Print the table and what failed."""
        console = console or Console(highlight=False)
        console.print(Text(self.headline), soft_wrap=True)
        if self.findings:
            console.print(self.table())
        for line in self.lines():
            console.print(Text(line))

    def __str__(self) -> str:
        console = Console(width=100, highlight=False, color_system=None, force_terminal=False)
        with console.capture() as captured:
            self.show(console)
        return captured.get().rstrip()

    __repr__ = __str__  # shown by a failing assertion

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values; NaN and infinity become texts."""
        verdicts = {
            module: {
                direction: {"passed": v.passed, "checks": v.checks, **_jsonable(asdict(v.decisive))}
                for direction, v in row.items()
            }
            for module, row in self.verdicts.items()
        }
        return {
            "title": self.title,
            "passed": self.passed,
            "comparisons": len(self.findings),
            "seconds": round(self.seconds, 3),
            "kinds": self.kinds,
            "verdicts": verdicts,
            "notes": self.notes,
            "findings": [{**_jsonable(asdict(finding)), "passed": finding.passed} for finding in self.findings],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Report":
        """The report that `to_json` was called on, without kinds and seconds."""
        findings = [
            Finding(
                each["module"],
                each["direction"],
                each["check"],
                float(each["error"]),
                float(each["limit"]),
                float(each["abs_error"]),
                each["detail"],
            )
            for each in content["findings"]
        ]
        return cls(content["title"], findings, notes=list(content["notes"]))

    def markdown(self) -> str:
        """The table and the failures, as Markdown."""
        rows = []
        for module, row in self.verdicts.items():
            kind = self.kinds.get(module, "")
            name = module if kind in ("", module) else f"{module} ({kind})"
            rows.append((name, *(self._cell(row, direction).plain for direction in DIRECTIONS)))
        legend = "||got - expected|| / ||expected||; a cell has the error nearest to its band"
        table = TextTable("Errors", legend, 1, ("module", *DIRECTIONS), rows)
        lines = [f"# {self.headline}", "", table.markdown(), "", *(f"- {line}" for line in self.lines())]
        return "\n".join(lines).rstrip() + "\n"

    def record(self, run: "Run", *, metrics: bool = True, files: bool = True) -> None:
        """Record the report in an MLflow run: tag `verification`, metrics at step 0, a table, JSON and Markdown."""
        run.tags({"verification": "passed" if self.passed else "failed"})
        if self.failures:
            run.tags({"verification.failed": ", ".join(f"{f.module} {f.direction}" for f in self.failures)})
        if metrics:
            run.metrics(self.metrics(), 0)
        if files:
            run.text(json.dumps(self.to_json(), indent=1), REPORT)
            run.text(self.markdown(), "verification/report.md")
            run.table(self.artifact_table(), "verification/verdicts.json")


def _texts(finding: Finding) -> tuple[str, str]:
    return f"{finding.error:.1e}", f"{finding.limit:.0e}"


def _describe(finding: Finding) -> str:
    if finding.error == math.inf and finding.detail.startswith(("raised", "returned")):
        return f"{finding.detail} ({finding.check})"
    error = f"error {finding.error:.2g}, at most {finding.limit:.0e} ({finding.check})"
    return f"{error}; {finding.detail}" if finding.detail else error


def _decisive(findings: list[Finding]) -> Finding:
    failed = [finding for finding in findings if not finding.passed]
    return failed[0] if failed else max(findings, key=lambda finding: finding.strain)


def _jsonable(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }
