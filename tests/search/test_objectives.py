"""What is aimed at: several objectives, the last value or the best, less instead of more; and the other samplers."""

import itertools

import pytest

pytestmark = pytest.mark.exhaustive  # tables, report and study are tested with several objectives by default

LR = "optimizer.lr=tag(log,interval(0.5,20.0))"


@pytest.fixture(scope="module")
def several(place, search):
    """A search of three objectives: the best and the last PSNR, and few parameters."""
    here = place()
    objective = "hydra.sweeper.objective=[best val/psnr_db,last val/psnr_db,parameters]"
    direction = "hydra.sweeper.direction=[maximize,maximize,minimize]"
    space = (LR, "model.channels.0=interval(2,8)", "trainer.epochs=3", "hydra.sweeper.pruner=none")
    done = search(here, *space, objective, direction, "hydra.sweeper.n_trials=6",
                  "hydra.sweeper.sampler=random")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return here, done


def test_each_objective_has_its_value(several):
    """The best of the epochs, the last of them, and the count of the parameters, by the run's own record."""
    here, _ = several
    differ = False
    for number, trial in enumerate(here.trials()):
        psnr = here.history(number)
        channels = trial.params["model.channels.0"]
        parameters = float(here.runs()[1][number].data.params["parameters"])
        assert trial.values == [max(psnr), psnr[-1], parameters]
        assert parameters == 16 * (3 * channels + channels * 4 + 16 + 12) + channels + 4 + 4 + 3
        differ |= max(psnr) != psnr[-1]
    assert differ


def front_of(values):
    """Numbers of the points than which none is at least as good in all and better in one: by the definition."""
    signs = (1, 1, -1)
    points = [[sign * one for sign, one in zip(signs, point, strict=True)] for point in values]

    def beats(one, other):
        return all(a >= b for a, b in zip(one, other, strict=True)) and one != other

    return [n for n, point in enumerate(points) if not any(beats(other, point) for other in points)]


def test_the_pareto_front_stands_in_report_terminal_and_mlflow(several):
    here, done = several
    front = front_of([trial.values for trial in here.trials()])
    assert 1 < len(front) < 6
    assert sorted(trial.number for trial in here.study().best_trials) == front
    parent, nested = here.runs()
    assert parent.data.tags["best.trial"] == ", ".join(map(str, front))
    assert not any("best.value" in key for key in parent.data.tags)
    assert f"Pareto front, {len(front)} of 6 complete trials" in done.stdout
    report = (here.folder / "sweeps" / "custom" / "report.md").read_text()
    section = report[report.index("## The Pareto front") : report.index("## Why trials ended")]
    for number in range(6):
        assert (f"/runs/{nested[number].info.run_id}" in section) == (number in front)
    for run in nested.values():
        assert run.data.tags["trial.value"].count(",") == 2


def test_of_several_objectives_nothing_looks_at_the_test_photographs(several):
    here, done = several
    assert not any(key.startswith("test/") for key in here.runs()[0].data.metrics)
    assert "test photographs" not in done.stdout


@pytest.fixture(scope="module")
def grid(place, search):
    """Every point of a grid, the last loss to become small."""
    here = place()
    space = ("optimizer.lr=choice(0.5,2.0)", "model.kernel_size=range(2,4)", "hydra.sweeper.sampler=grid")
    done = search(here, *space, "hydra.sweeper.n_trials=null", "hydra.sweeper.objective=last val/loss",
                  "hydra.sweeper.direction=minimize", "hydra.sweeper.pruner=none")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return here, done


def test_a_grid_visits_every_point_once(grid):
    """The first one, the configuration as it stands, lies outside of it, and its nearest point stands for it."""
    here, done = grid
    points = [(trial.params["optimizer.lr"], trial.params["model.kernel_size"]) for trial in here.trials()]
    assert sorted(points) == sorted(itertools.product((0.5, 2.0), (2, 3)))
    assert here.states() == ["complete"] * 4
    assert "4 trials of 2 settings by grid" in done.stdout
    assert "the first trial is the configuration as it stands, but for" in done.stdout


def test_what_is_to_be_small_has_the_smallest_as_its_best(grid):
    here, done = grid
    values = [trial.value for trial in here.trials()]
    assert values == [here.history(number, "val/loss")[-1] for number in range(4)]
    tags = here.runs()[0].data.tags
    assert tags["direction"] == "minimize"
    assert tags["objective"] == "last val/loss"
    assert float(tags["best.value"]) == min(values)
    assert int(tags["best.trial"]) == values.index(min(values))
    assert f"trial {values.index(min(values))} again" in done.stdout


def test_the_same_training_in_other_words_is_not_trained_twice(place, search):
    """padding=same of three odd kernels is padding=1."""
    here = place()
    space = ("model.kernel_size=3", "model.upsampling=nearest", "model.padding=choice(same,1)")
    done = search(here, *space, "hydra.sweeper.n_trials=2", "hydra.sweeper.sampler=grid")
    assert done.returncode == 0, done.stderr
    assert here.states() == ["complete", "repeated"]
    assert "no further point is left: 1 were trained, 0 refused" in done.stdout
    assert list(here.runs()[1]) == [0]
    assert len(list(here.folder.glob("hydra/*/*/*/journal.jsonl"))) == 1


def test_too_many_failures_end_the_search_with_an_error(place, search):
    here = place()
    space = ("optimizer.lr=1e30", "seed=choice(0,1,2,3)", "hydra.sweeper.n_trials=4", "hydra.sweeper.pruner=none")
    done = search(here, *space, "hydra.sweeper.max_failure_rate=0.2")
    assert done.returncode == 1
    assert done.stderr == "error: 1 of 4 trainings failed, but hydra.sweeper.max_failure_rate is 0.2\n"
    assert here.states() == ["failed"]
    assert here.runs()[0].info.status == "FAILED"
