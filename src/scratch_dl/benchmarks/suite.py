"""Run the parts at each number of threads, and collect their results."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console, Group
from rich.text import Text

from scratch_dl import kernels
from scratch_dl.benchmarks import figure, flops, loop, memory, modules, prediction, scaling, steps
from scratch_dl.benchmarks.goals import GOALS, goal_of
from scratch_dl.benchmarks.part_result import PartResult, format_number
from scratch_dl.benchmarks.settings import BenchSettings
from scratch_dl.kernels.restoring import restored
from scratch_dl.system import provenance
from scratch_dl.system.memory import keep_freed_memory
from scratch_dl.terminal.text_table import TextTable

if TYPE_CHECKING:
    from scratch_dl.tracking import Run

MEASURES: dict[str, Callable[[BenchSettings], PartResult]] = {
    "modules": modules.measure,
    "steps": steps.measure,
    "flops": flops.measure,
    "memory": memory.measure,
    "scaling": scaling.measure,
    "prediction": prediction.measure,
    "loop": loop.measure,
}
_ONCE = ("memory", "scaling", "loop")  # with the last number of threads alone
JSON, FIGURE, MARKDOWN = "bench.json", "bench.png", "bench.md"


@dataclass
class BenchResults:
    """The results of all parts, with the machine and its settings."""

    machine: dict[str, Any]
    outcomes: list[PartResult] = field(default_factory=list)
    elapsed_s: float = 0.0
    smoke: bool = False

    def goals(self) -> list[dict[str, Any]]:
        """Every figure that has a goal, with its number of threads; of tiny sizes, none."""
        if self.smoke:
            return []
        return [{**goal, "threads": outcome.threads} for outcome in self.outcomes for goal in outcome.goals()]

    @property
    def verdict(self) -> str:
        """How many of the figures that have a goal reach it."""
        reached = [goal["reached"] for goal in self.goals()]
        return f"{sum(reached)} of {len(reached)} figures reach their goal"

    @property
    def summary(self) -> TextTable:
        """One row per goal: how many figures reach it, and the one farthest from it with its threads."""
        rows = []
        for goal in GOALS:
            figures = [figure for figure in self.goals() if goal_of(figure["figure"]) is goal]
            if figures:
                worst = (max if goal.sign.startswith("<") else min)(figures, key=lambda figure: float(figure["value"]))
                reached = f"{sum(figure['reached'] for figure in figures)} of {len(figures)}"
                rule, threads = f"{goal.sign} {goal.bound:.2f}", str(worst["threads"])
                rows.append((goal.pattern, rule, reached, format_number(worst["value"]), threads))
        return TextTable("Goals", self.verdict, 1, ("figure", "goal", "reached", "worst", "threads"), rows)

    def metrics(self) -> dict[str, float]:
        """Names for MLflow: bench/<threads>_threads/<figure>, or smoke/... of tiny sizes."""
        kind = "smoke" if self.smoke else "bench"
        return {
            f"{kind}/{outcome.threads}_threads/{name}": value
            for outcome in self.outcomes
            for name, value in outcome.figures.items()
        }

    def to_json(self) -> dict[str, Any]:
        """Everything, as numbers, texts, lists and dicts."""
        return {
            "machine": self.machine,
            "smoke": self.smoke,
            "elapsed_s": round(self.elapsed_s, 1),
            "goals": self.goals(),
            "outcomes": [outcome.to_json() for outcome in self.outcomes],
        }

    def markdown(self) -> str:
        """Machine, tables and verdict as GitHub's Markdown."""
        parts = [f"{self.headline}:"]
        for outcome in self.outcomes:
            parts += [outcome.titled.markdown(), *outcome.notes]
        return "\n\n".join([*parts, *([self.summary.markdown()] if self.goals() else [])]) + "\n"

    @property
    def headline(self) -> str:
        """The machine and the kernels, in a sentence without its end."""
        machine = self.machine
        return (
            f"On {machine['cpu']}, {machine['usable_cores']} cores, torch {machine['torch']}, kernels: "
            f"{machine['backend']}, in {_duration(self.elapsed_s)}{', tiny sizes' * self.smoke}"
        )

    def write(self, folder: Path) -> None:
        """The JSON file and the picture, into a folder, which is made if missing."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / JSON).write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")
        figure.draw(self.outcomes).savefig(folder / FIGURE)

    def record(self, run: "Run") -> None:
        """Record everything in an MLflow run: metrics, machine, tables, JSON and picture."""
        run.params({f"machine.{name}": value for name, value in self.machine.items()})
        run.metrics(self.metrics(), 0)
        run.tags({"kernels": self.machine["backend"], **({"goals": self.verdict} if self.goals() else {})})
        run.text(json.dumps(self.to_json(), indent=1), JSON)
        run.text(self.markdown(), MARKDOWN)
        run.figure(figure.draw(self.outcomes), FIGURE)


@restored()
def measure(
    parts: Sequence[str],
    rounds: int,
    seed: int,
    backend: str,
    threads: Sequence[int | None],
    smoke: bool,
    console: Console | None = None,
) -> BenchResults:
    """Measure `parts` at each of `threads` in turn; torch's threads and the kernels' backend are then as before.

    Args:
        parts: names out of `MEASURES`.
        rounds: values behind every median.
        seed: of inputs, targets and weights.
        backend: of the hand-written kernels.
        threads: None is torch's own choice.
        smoke: tiny sizes and at most two rounds.
        console: gets each table when it is complete.
    """
    start, before = time.perf_counter(), torch.get_num_threads()
    kernels.use(backend)
    keep_freed_memory()  # as a training does; both sides gain by it
    rounds = min(rounds, 2) if smoke else rounds
    results = BenchResults(_machine(seed, rounds), smoke=smoke)
    counts = list(dict.fromkeys(before if count is None else count for count in threads))
    for part in parts:
        for count in counts[-1:] if part in _ONCE else counts:
            torch.set_num_threads(count)
            outcome = MEASURES[part](BenchSettings(rounds, seed, backend, count, smoke))
            results.outcomes.append(outcome)
            if console is not None:
                console.print(Group(outcome.titled.rich(), *(Text(note) for note in outcome.notes)))
    results.elapsed_s = time.perf_counter() - start
    return results


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} s"


def _machine(seed: int, rounds: int) -> dict[str, Any]:
    environment = provenance.environment()
    machine = {name: environment[name] for name in ("cpu", "cores", "usable_cores", "python", "platform")}
    return {**machine, "torch": str(torch.__version__), "backend": kernels.used(), "seed": seed, "rounds": rounds}
