"""How much each searched setting matters, by two evaluators that answer different questions."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING

from scratch_dl.search.axes import BAR, blank
from scratch_dl.search.outcomes import Objective, is_copied
from scratch_dl.search.storage import quiet

if TYPE_CHECKING:
    import optuna
    from matplotlib.figure import Figure
    from optuna.importance import BaseImportanceEvaluator
    from optuna.study import StudyDirection
    from optuna.trial import FrozenTrial

EVALUATORS = {"pedanova": "PED-ANOVA", "fanova": "fANOVA"}
QUESTIONS = {
    "pedanova": "PED-ANOVA (Watanabe et al. 2023) says which settings separate the best trials from all others: it "
    "compares where the best ones lie with where all of them lie, setting by setting.",
    "fanova": "fANOVA (Hutter et al. 2014) says which settings explain the variance of the value over the whole space, "
    "bad regions included: it fits a random forest and divides its variance.",
}
_TOP = 0.1
_TOP_TRIALS = 5  # fewer are no distribution


@dataclass(frozen=True)
class Importances:
    """Shares that add up to 1, the largest first, by an evaluator with its name, and what they are shares of."""

    title: str
    shares: Mapping[str, float]
    note: str

    def figure(self, objective: Objective) -> "Figure":
        """A bar a setting."""
        names = list(self.shares)[::-1]
        figure = blank(7.5, 1.5 + 0.34 * len(names))
        axes = figure.add_subplot()
        bars = axes.barh(names, [self.shares[name] for name in names], color=BAR)
        axes.bar_label(bars, [f"{self.shares[name]:.2f}" for name in names], padding=3, fontsize=8)
        axes.set(xlim=(0, 1.1 * max(self.shares.values())), xlabel=self.note)
        axes.set_title(f"{self.title}: importance for {objective}", fontsize=11, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        return figure


def importances(study: "optuna.Study", evaluator: str, place: int, objective: Objective) -> Importances | str:
    """By one of EVALUATORS, for the objective at `place`; a text that says why there are none."""
    from optuna.trial import TrialState

    trials = [
        trial for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not is_copied(trial.user_attrs)  # a copy is no further witness
    ]  # fmt: skip
    if len(trials) < 2:
        return f"needs two complete trials at least, but there {'is one' if trials else 'are none'}"
    if len({trial.values[place] for trial in trials}) == 1:
        return "all complete trials have the same value"
    sign = -1 if evaluator == "pedanova" and objective.direction == "maximize" else 1  # the least values are its best
    top = min(0.5, max(_TOP, _TOP_TRIALS / len(trials)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that evaluators are experimental, and that targets are to become small
        from optuna.importance import get_param_importances

        try:
            found = get_param_importances(
                _of(trials, study.directions),
                evaluator=_evaluator(evaluator, top),
                target=lambda trial: sign * trial.values[place],
                normalize=False,
            )
        except (ValueError, RuntimeError) as error:
            return " ".join(str(error).split())
    drawn = {name for trial in trials for name in trial.params}
    total = sum(found.values())
    if not found:
        return "no setting was drawn in every complete trial"
    if len(found) == 1:
        return f"{next(iter(found))} is the only setting drawn in every complete trial"
    if not total > 0:
        return "no setting divides the complete trials"
    left_out = sorted(drawn - found.keys())
    note = f"share of what separates the best {top:.0%} of {len(trials)} trials from all"
    if evaluator == "fanova":
        note = f"share of the variance of {len(trials)} trials"
    if left_out:
        note += "\n" + fill(f"left out, as not drawn in every trial: {', '.join(left_out)}", 70)
    return Importances(EVALUATORS[evaluator], {name: value / total for name, value in found.items()}, note)


def _of(trials: Sequence["FrozenTrial"], directions: Sequence["StudyDirection"]) -> "optuna.Study":
    """A study of these trials alone, in memory."""
    import optuna

    with quiet():
        study = optuna.create_study(directions=directions)
        study.add_trials(trials)
    return study


def _evaluator(name: str, top: float) -> "BaseImportanceEvaluator":
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator

    return PedAnovaImportanceEvaluator(target_quantile=top) if name == "pedanova" else FanovaImportanceEvaluator(seed=0)
