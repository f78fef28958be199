"""A configuration file that cannot be read is one line with the file, the line in it and the cure."""

import pytest

from scratch_dl import train
from scratch_dl.config.yaml_files import parse_yaml, read_yaml
from scratch_dl.system.errors import ConfigError

HEAD = "# @package _global_\n"
BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{after}: &{after} [{','.join([f'*{before}'] * 10)}]\n"
    for before, after in zip("abcdefghi", "bcdefghij", strict=True)
)
BAD = [
    pytest.param(b"trainer:\n\tepochs: 1\n", "line 3: found character '\\t' that cannot start any token; a", id="tab"),
    pytest.param(b"seed: 1\nseed: 2\n", "line 3: the key seed is given twice; leave one of them out", id="twice"),
    pytest.param(b"trainer: {epochs: 1, epochs: 2}\n", "line 2: the key epochs is given twice", id="twice-inside"),
    pytest.param(
        "seed: 1\ntracking: {run_name: \xfcber}\n".encode("latin-1"),
        "line 3, tracking: the file must be UTF-8, but has the byte 0xfc; save it as UTF-8", id="latin-1"),
    pytest.param(b"a: b: c\n", "line 2: mapping values are not allowed here; quote a value", id="colons"),
    pytest.param(b"a: @x\n", "line 2: found character '@' that cannot start any token; quote the value", id="at"),
    pytest.param(b"a: [1, 2\nb: 3\n", "line 3: expected ',' or ']', but got ':'", id="open-list"),
    pytest.param(b"a: &a [*a]\n", "line 2: an alias is inside the value that it repeats", id="recursion"),
    pytest.param(b"a: !!python/object:os.x {}\n", "line 2: could not determine a constructor for the tag", id="object"),
    pytest.param(b"a: 1\n---\nb: 1\n", "line 3: expected a single document in the stream, but found another", id="two"),
    pytest.param(BOMB.encode(), "with its aliases expanded it must have at most 20000 values", id="alias-bomb"),
    pytest.param(b"[" * 5000, "its values are nested too deeply", id="deep"),
    pytest.param(b"- 1\n- 2\n", "must have keys and values, but got '[1, 2]'", id="list"),
    pytest.param(b"seed: ${\n", "at seed: ", id="interpolation"),
    pytest.param(b"a: '\x07'\n", "the character U+0007 must not stand in YAML", id="control"),
    pytest.param(b"x" * 1_000_001, "must have at most 1000000 bytes", id="huge"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "message"), BAD)
def test_a_bad_preset_is_one_line_with_file_and_line(in_process, tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "cfg" / "experiment" / "x.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(HEAD.encode() + content)
    status, out, err = in_process(train, "--config-dir", "cfg", "experiment=x")
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith(f"error: {file}"), err
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["cfg"]


@pytest.mark.parametrize("group", ["experiment", "debug", "search"])
def test_a_preset_without_its_package_is_refused_with_the_line_to_add(in_process, tmp_path, group):
    file = tmp_path / group / "mine.yaml"
    file.parent.mkdir()
    file.write_text("trainer:\n  epochs: 1\n")
    given = ["--config-dir", str(tmp_path), f"{group}=mine", "--cfg", "job"]
    status, _, err = in_process(train, *given)
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: {file} must begin with the line '# @package _global_'")
    file.write_text("# @package _global_\n" + file.read_text())
    status, out, _ = in_process(train, *given)
    assert status == 0
    assert "  epochs: 1\n" in out


def test_a_run_of_a_recorded_configuration_is_read_with_the_same_care(in_process, tmp_path):
    (tmp_path / "config.yaml").write_text(BOMB)
    status, _, err = in_process(train, f"resume={tmp_path}")
    assert (status, err.count("\n")) == (2, 1)
    assert "with its aliases expanded it must have at most 20000 values" in err


def test_a_few_aliases_are_taken():
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\n", "f") == {"a": {"x": 1}, "b": {"x": 1, "y": 2}}


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"x\.yaml cannot be read: No such file"):
        read_yaml(tmp_path / "x.yaml")
