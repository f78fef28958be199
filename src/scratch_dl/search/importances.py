"""How much each searched setting matters, by two of Optuna's evaluators that answer different questions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from scratch_dl.search.storage import quiet
from scratch_dl.search.trial_result import Objective

EVALUATORS = {"pedanova": "PED-ANOVA", "fanova": "fANOVA"}
QUESTIONS = {
    "pedanova": "PED-ANOVA (Watanabe et al. 2023) says which settings separate the best trials from all others: it "
    "compares where the best ones lie with where all of them lie, setting by setting.",
    "fanova": "fANOVA (Hutter et al. 2014) says which settings explain the variance of the value over the whole space, "
    "bad regions included: it fits a random forest and divides its variance.",
}
LEAST_TRIALS = 10  # complete ones; with fewer, importances would be chance
_TOP_SHARE, _TOP_TRIALS = 0.1, 5  # the best trials, for PED-ANOVA: fewer than five are no distribution


@dataclass(frozen=True)
class Importances:
    """Shares that add up to 1, the largest first, and a note that says what they are shares of."""

    shares: Mapping[str, float]
    note: str


def importances(study: optuna.Study, evaluator: str, place: int, objective: Objective) -> Importances | str:
    """Return how much each setting matters to the objective at `place`, by one of EVALUATORS; a reason if unknown."""
    trials = complete_trials(study)
    if reason := too_few(trials):
        return reason
    if len(trials) < LEAST_TRIALS:
        return f"needs {LEAST_TRIALS} complete trials at least, but there are {len(trials)}"
    if len({trial.values[place] for trial in trials}) == 1:
        return "all complete trials have the same value"
    # These import scikit-learn, which takes a second, and a search needs it once.
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

    top = min(0.5, max(_TOP_SHARE, _TOP_TRIALS / len(trials)))
    sign = -1 if evaluator == "pedanova" and objective.direction == "maximize" else 1  # its best are the least values
    with quiet():  # it warns that evaluators are experimental and how it wants its targets
        chosen = (
            PedAnovaImportanceEvaluator(target_quantile=top)
            if evaluator == "pedanova"
            else FanovaImportanceEvaluator(seed=0)
        )
        try:
            shares = get_param_importances(
                study_of(trials), evaluator=chosen, target=lambda trial: sign * trial.values[place], normalize=False
            )
        except (ValueError, RuntimeError) as error:
            return " ".join(str(error).split())
    total = sum(shares.values())
    if not shares:
        return "no setting was drawn in every complete trial"
    if len(shares) == 1:
        return f"{next(iter(shares))} is the only setting drawn in every complete trial"
    if not total > 0:
        return "no setting divides the complete trials"
    note = f"share of what separates the best {top:.0%} of {len(trials)} trials from all"
    if evaluator == "fanova":
        note = f"share of the variance of {len(trials)} trials"
    if left_out := sorted({name.partition("[")[0] for trial in trials for name in trial.params if name not in shares}):
        note += "\n" + fill(f"left out, as not drawn in every trial: {', '.join(left_out)}", 70)
    return Importances({name: value / total for name, value in shares.items()}, note)


def study_of(trials: Sequence[FrozenTrial]) -> optuna.Study:
    """A study in memory of these trials alone, with as many objectives as they have values."""
    with quiet():
        study = optuna.create_study(directions=["minimize"] * len(trials[0].values))
        study.add_trials(trials)
    return study


def complete_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the complete trials."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def too_few(trials: Sequence[Any]) -> str:
    """Return why these trials cannot be compared; "" if there are two or more."""
    count = "is one" if trials else "are none"
    return "" if len(trials) > 1 else f"needs two complete trials at least, but there {count}"
