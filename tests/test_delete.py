"""`python -m scratch_dl.delete` as it is typed: what it shows, asks, refuses, and says when it stops half-way."""

import builtins
import shlex
import sys

import pytest

from scratch_dl import delete
from scratch_dl.tracking import Run, deletion, folder_lock, open_store
from scratch_dl.tracking.store import client


def trained(store, name, psnr=20.0):
    run = Run.create(store, store.directory / name, "experiment", name, {"verification": "passed"})
    run.params({"trainer.epochs": 1, "parameters": 9})
    if psnr is not None:
        run.metrics({"val/psnr_db": psnr, "val/best_psnr_db": psnr}, 1)
    assert run.finish("FINISHED")
    return run.run_id


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "mlruns")


@pytest.fixture
def command(tmp_path, monkeypatch, in_process):
    """The command in the store's folder, answered on a terminal if `answer` is given: (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, answer=None):
        asked = []

        def reply(question):
            asked.append(question)
            if not isinstance(answer, str):
                raise answer
            return answer

        monkeypatch.setattr(sys, "stdin", type("", (), {"isatty": lambda _: answer is not None})())
        monkeypatch.setattr(builtins, "input", reply)
        return *in_process(delete, *arguments), asked

    return run


def shown(store):
    """The names of the runs that MLflow shows."""
    experiment = client(store).get_experiment_by_name("experiment").experiment_id
    return sorted(run.info.run_name for run in client(store).search_runs([experiment]))


def test_runs_are_shown_and_deleted_if_the_answer_is_yes(store, command):
    ids = [trained(store, "one", 21.236), trained(store, "two", None), trained(store, "three")]
    status, out, err, asked = command(ids[0][:8], ids[1], answer="y")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        f"{ids[0][:8]}  21.24 dB  one ({store.directory}/one)",
        f"{ids[1][:8]}   no PSNR  two ({store.directory}/two)",
        f"deleted {ids[0][:8]} (one)",
        f"deleted {ids[1][:8]} (two)",
    ]
    assert asked == ["delete 2 runs? [y/N] "]
    assert shown(store) == ["three"]
    assert [(store.directory / name).exists() for name in ("one", "two", "three")] == [False, False, True]


@pytest.mark.parametrize("answer", ["", "n", "yess", EOFError()], ids=repr)
def test_any_other_answer_deletes_nothing(store, command, answer):
    run_id = trained(store, "one")
    status, out, err, asked = command(run_id, answer=answer)
    assert (status, err, asked) == (1, "", ["delete 1 run? [y/N] "])
    assert out.endswith("nothing was deleted\n")
    assert shown(store) == ["one"]


def test_without_a_terminal_it_shows_the_command_that_works(store, command):
    run_id = trained(store, "one")
    status, out, err, asked = command(run_id[:8], f"tracking.dir={store.directory}")
    assert (status, err.count("\n"), asked) == (2, 1, [])
    assert run_id[:8] in out
    assert err.startswith("error: yes must be true where no terminal can answer, but got false; nothing was deleted")
    assert shown(store) == ["one"]
    words = shlex.split(err.partition("this deletes: ")[2])
    assert words == ["python", "-m", "scratch_dl.delete", run_id, "yes=true", f"tracking.dir={store.directory}"]
    assert command(*words[3:])[0] == 0
    assert shown(store) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "runs must be given, for example python -m scratch_dl.delete 973b3352, but got []; python -m scratch_dl"),
        (["best"], "runs must be ids, because best may be another run next time, but got 'best'; now it is {one}"),
        (["latest"], "runs must be ids, because latest may be another run next time, but got 'latest'; now it is {"),
        (["zzzz"], "runs=zzzz is not in tracking.uri=sqlite:///{folder}/mlflow.db; the nearest are "),
        (["mlruns/one"], "runs must be ids, or beginnings of ids, but got 'mlruns/one'; python -m scratch_dl.runs"),
        (["a b"], "runs must be ids, or beginnings of ids, but got 'a b'"),
        (["runs=[1234]"], "runs must be ids, or beginnings of ids, but got 1234"),
        (["run={one}"], "run is not a setting; did you mean 'runs'?"),
        (["{one}", "yes=please"], "yes must be true or false, but got 'please'"),
        (["-m", "{one}"], "delete takes one configuration at a time, but got -m"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_typed_wrong_is_one_line_and_exit_2(store, command, arguments, said):
    run_id = trained(store, "one")
    places = {"one": run_id, "folder": store.directory}
    status, _, err, _ = command("yes=true", *(argument.format(**places) for argument in arguments))
    assert (status, err.count("\n")) == (2, 1), err
    assert err.startswith(f"error: {said.removesuffix('{').format(**places)}"), err
    assert shown(store) == ["one"]


def test_if_one_of_several_must_not_be_deleted_none_is(store, command):
    ids = [trained(store, "one"), trained(store, "two")]
    with folder_lock(store.directory / "two"):
        status, out, err, _ = command(*ids, "yes=true")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"error: {ids[1]} (two) is running; wait for it or end it, then delete it")
    assert shown(store) == ["one", "two"]
    assert (store.directory / "one" / "journal.jsonl").exists()


def test_without_a_store_there_is_nothing_to_delete_and_none_is_made(tmp_path, command):
    status, out, err, _ = command("973b3352", "yes=true")
    assert (status, out) == (2, "")
    assert err.startswith("error: tracking.dir=mlruns holds no runs; ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (
            OSError(13, "Permission denied"),
            1,
            "it is deleted in MLflow, but some of its files are left (Permission denied)",
        ),
        (KeyboardInterrupt(), 130, "this was interrupted"),
    ],
    ids=["disk", "ctrl-c"],
)
def test_when_it_stops_half_way_it_says_how_far_it_came_and_what_continues(
    store, command, monkeypatch, error, status, reason
):
    ids = [trained(store, name) for name in ("one", "two", "three")]
    remove = deletion._remove_folder

    def fail(folder):
        if folder.name == "two":
            raise error
        remove(folder)

    with monkeypatch.context() as patch:
        patch.setattr(deletion, "_remove_folder", fail)
        code, out, err, _ = command(*ids, "yes=true")
    one, two, three = (run_id[:8] for run_id in ids)
    continues = f"python -m scratch_dl.delete {ids[1]} {ids[2]} yes=true"
    how_far = f"deleted before it: {one}; not deleted: {three}; this continues: {continues}"
    assert (code, err) == (status, f"error: {two} is not deleted completely: {reason}; {how_far}\n")
    assert f"deleted {one} (one)\n" in out
    assert shown(store) == ["three"]
    assert [(store.directory / name).exists() for name in ("one", "two", "three")] == [False, True, True]
    code, out, err, _ = command(*shlex.split(continues)[3:])
    assert (code, err) == (0, "")
    assert "deleted in MLflow already, and these files are left" in out
    assert shown(store) == []
    assert not any((store.directory / name).exists() for name in ("one", "two", "three"))


def test_artifacts_that_stay_are_named(store, command, tmp_path):
    experiment = client(store).create_experiment("experiment", artifact_location=str(tmp_path / "elsewhere"))
    info = client(store).create_run(experiment).info
    client(store).set_terminated(info.run_id)
    status, out, _, _ = command(info.run_id, "yes=true")
    assert status == 0
    assert f"its artifacts stay at {info.artifact_uri}" in out


def test_the_help_says_what_is_deleted(command):
    status, out, _, _ = command("--help")
    assert status == 0
    assert "python -m scratch_dl.delete RUN... [yes=true]" in out
