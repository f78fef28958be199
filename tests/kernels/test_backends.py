"""Which backend computes: what `use` takes and refuses, what it falls back to, and how the library is built."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import preloaded
from scratch_dl import kernels
from scratch_dl.kernels import Geometry, compiled, library, plans, pointwise, reference

ROOT = Path(__file__).parents[2]
GEOMETRY = Geometry((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
OFFERED = getattr(library.load(), "offered", ())
WHY = "it was not built"


@pytest.fixture(autouse=True)
def as_before():
    """The backend, whatever a test chose."""
    before = kernels.used()
    yield
    kernels.use(before)


@pytest.fixture
def library_here():
    """The loaded library."""
    found = library.load()
    if isinstance(found, str):
        pytest.fail(f"no native library to test ({found}): build it by `python setup.py build_ext --inplace`")
    return found


@pytest.fixture
def without_library(monkeypatch):
    """As where it was not built."""
    monkeypatch.setattr(kernels, "load", lambda: WHY)
    yield
    monkeypatch.undo()


def images(dtype=torch.float32, device="cpu"):
    return torch.ones(2, 3, 5, 6, dtype=dtype, device=device), torch.ones(4, 3, 3, 3, dtype=dtype, device=device)


@pytest.mark.parametrize("backend", ["reference", "auto", "native", *(f"native {name}" for name in OFFERED)])
def test_what_is_used_can_be_used_again(backend, library_here):
    """`used` names it so that `use` takes it; "auto" and "native" are the widest instruction set."""
    kernels.use(backend)
    used = kernels.used()
    assert used == (f"native {library_here.offered[0]}" if backend in ("auto", "native") else backend)
    kernels.use("reference")
    kernels.use(used)
    assert kernels.used() == used
    assert kernels.used("cpu:0") == used
    assert kernels.used("cuda") == kernels.used("meta") == "reference"


def test_the_widest_instruction_set_comes_first_and_the_portable_one_is_always_there(library_here):
    order = [name for name in library.VECTOR_BYTES if name in library_here.offered]
    assert list(library_here.offered) == order
    assert order[-1] == "portable"
    assert list(library.VECTOR_BYTES.values()) == sorted(library.VECTOR_BYTES.values(), reverse=True)


@pytest.mark.parametrize("name", OFFERED)
def test_vectors_are_as_long_as_the_instruction_set_says(name, library_here):
    """By which the plans cut the channels."""
    kernels.use(f"native {name}")
    assert library_here.instructions == name
    widths = {dtype: library.FUNCTIONS[dtype].width for dtype in library.DTYPES}
    assert widths == {dtype: library.VECTOR_BYTES[name] // dtype.itemsize for dtype in library.DTYPES}


def test_a_library_of_other_sources_is_refused(monkeypatch):
    """Its structures could be others; an old one is left behind by an update of the sources alone."""
    monkeypatch.delenv("SCRATCH_DL_NATIVE", raising=False)
    monkeypatch.setattr(library, "sources_digest", lambda: "0123456789abcdef")
    assert "was built from other sources than these; install scratch_dl again" in library.load.__wrapped__()


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        pytest.param("nativ", "backend must be one of auto, reference, native, .*, but got 'nativ'", id="misspelt"),
        pytest.param("native sse9", "backend must be one of .*, but got 'native sse9'", id="no-such-instructions"),
        pytest.param("", "backend must be one of .*, but got ''", id="empty"),
        pytest.param("native ", "backend must be one of .*, but got 'native '", id="nothing-after-native"),
        pytest.param("Reference", "backend must be one of .*, but got 'Reference'", id="capital"),
        pytest.param(None, "backend must be one of .*, but got None", id="none"),
    ],
)
def test_an_unknown_backend_is_refused_and_changes_nothing(backend, message):
    before = kernels.used()
    for function in (kernels.check, kernels.use):
        with pytest.raises(ValueError, match=message):
            function(backend)
    assert kernels.used() == before


def test_an_instruction_set_that_the_processor_lacks_is_refused_with_those_it_has(library_here, monkeypatch):
    before = kernels.used()
    monkeypatch.setattr(library_here, "offered", ("portable",))
    message = "backend must be auto, reference, native portable on this processor, but got 'native avx512'"
    for function in (kernels.check, kernels.use):
        with pytest.raises(ValueError, match=message):
            function("native avx512")
    assert kernels.used() == before


@pytest.mark.parametrize("backend", ["native", "native portable"])
@pytest.mark.usefixtures("without_library")
def test_without_a_library_native_is_refused_with_the_reason(backend):
    message = f"backend must be auto or reference here, but got '{backend}': {WHY}"
    for function in (kernels.check, kernels.use):
        with pytest.raises(ValueError, match=message):
            function(backend)
    assert kernels.why_not_native() == WHY


@pytest.mark.usefixtures("without_library")
def test_without_a_library_auto_is_the_reference():
    for backend in ("auto", "reference"):
        kernels.check(backend)
        kernels.use(backend)
        assert kernels.used() == "reference"
    x, w = images()
    assert torch.equal(kernels.convolution(x, w, None, GEOMETRY), reference.convolution(x, w, None, GEOMETRY))
    assert kernels.peak_gflops(1) is None


def test_with_a_library_there_is_no_reason_against_it(library_here):
    assert kernels.why_not_native() == ""
    kernels.use("auto")
    assert kernels.used() == f"native {library_here.offered[0]}"


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        pytest.param(b"no library", r"_native\.so cannot be loaded: .*_native\.so", id="no-library"),
        pytest.param(None, "it was not built, which takes a C\\+\\+17 compiler", id="no-file"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_named_with_the_reason(contents, reason, tmp_path, monkeypatch):
    path = tmp_path / "_native.so"
    if contents is not None:
        path.write_bytes(contents)
    monkeypatch.setenv("SCRATCH_DL_NATIVE", str(path))
    found = library.load.__wrapped__()
    assert isinstance(found, str)
    assert re.match(reason, found), found
    assert "\n" not in found


def test_a_library_of_another_program_is_no_library(monkeypatch):
    """It lacks the functions."""
    import _ctypes

    monkeypatch.setenv("SCRATCH_DL_NATIVE", _ctypes.__file__)
    assert "cannot be loaded" in library.load.__wrapped__()


CALLS = [  # each function's name, and arguments made of an input and a weight
    pytest.param("convolution", lambda x, w: (x, w, None, GEOMETRY), id="convolution"),
    pytest.param("convolution_grad_bias", lambda x, _: (x,), id="grad-bias"),
    pytest.param("convolution_grad_input", lambda x, w: (x, w.transpose(0, 1), (5, 6), GEOMETRY), id="grad-input"),
    pytest.param("convolution_grad_weight", lambda x, _: (x, x, GEOMETRY), id="grad-weight"),
    pytest.param(
        "convolution_transposed", lambda x, w: (x, w.transpose(0, 1), None, (5, 6), GEOMETRY), id="transposed"
    ),
    pytest.param("convolution_transposed_grad_input", lambda x, w: (x, w, GEOMETRY), id="transposed-grad-input"),
    pytest.param("relu", lambda x, _: (x,), id="relu"),
    pytest.param("relu_grad", lambda x, _: (x, x), id="relu-grad"),
    pytest.param("sigmoid", lambda x, _: (x,), id="sigmoid"),
    pytest.param("sigmoid_grad", lambda x, _: (x, x), id="sigmoid-grad"),
    pytest.param("squared_error", lambda x, _: (x, x, 1.0, 1.0), id="squared-error"),
    pytest.param("sgd", lambda x, _: ([x], [x], [x], 0.1, 0.9, True), id="sgd"),
    pytest.param("adam", lambda x, _: ([x], [x], [x], [x], 0.1, (0.9, 0.99), 1e-8, 1), id="adam"),
    pytest.param("upsampled_convolution", lambda x, w: (x, w, None, (2, 2), GEOMETRY), id="upsampled"),
    pytest.param(
        "upsampled_convolution_grad_input",
        lambda x, w: (x.repeat(1, 1, 2, 2), w.transpose(0, 1), (5, 6), (2, 2), GEOMETRY), id="upsampled-grad-input",
    ),
    pytest.param(
        "upsampled_convolution_grad_weight", lambda x, _: (x, x.repeat(1, 1, 2, 2), (2, 2), GEOMETRY),
        id="upsampled-grad-weight",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments"), CALLS)
@pytest.mark.usefixtures("library_here")
def test_each_function_goes_to_the_backend_in_use(name, arguments, monkeypatch):
    """float32 and float64 on the CPU to the native one; anything else, and everything else, to the reference."""
    seen = []
    # The dispatcher holds the function itself, so its library's functions are watched.
    for module in (compiled, pointwise):
        monkeypatch.setattr(module, "FUNCTIONS", Watched(library.FUNCTIONS, seen))
    call = getattr(kernels, name)
    assert call.__name__ == name
    for backend, dtype, times in [
        ("native", torch.float32, True), ("native", torch.float64, True), ("reference", torch.float32, False)
    ]:  # fmt: skip
        kernels.use(backend)
        seen.clear()
        call(*arguments(*images(dtype)))
        assert bool(seen) == times, f"{backend}, {dtype}: {seen}"


class Watched:
    """A mapping that notes what was taken from it."""

    def __init__(self, inner, seen):
        self.inner, self.seen = inner, seen

    def __getitem__(self, key):
        self.seen.append(key)
        return self.inner[key]


@pytest.mark.parametrize(("name", "arguments"), CALLS)
@pytest.mark.usefixtures("library_here")
def test_what_is_not_on_the_cpu_goes_to_the_reference(name, arguments, monkeypatch):
    """A meta tensor has no memory at all."""
    kernels.use("native")
    for module in (compiled, pointwise):
        monkeypatch.setattr(module, "FUNCTIONS", {})
    got = getattr(kernels, name)(*arguments(*images(device="meta")))
    for tensor in got if isinstance(got, tuple) else (got,) if got is not None else ():
        assert tensor.is_meta


def test_every_function_of_the_reference_has_its_like():
    """With the same parameters, and a dispatcher in `kernels`."""
    import inspect

    for name, function in vars(reference).items():
        if inspect.isfunction(function) and function.__module__ == reference.__name__ and not name.startswith("_"):
            assert name in kernels.__all__, f"{name} is not in kernels.__all__"
            if name.startswith("upsample_nearest"):
                assert getattr(kernels, name) is function
                continue
            assert inspect.signature(getattr(compiled, name, None) or getattr(pointwise, name)) == inspect.signature(
                function
            ), name
            assert getattr(kernels, name).__doc__ == function.__doc__, name


MIXED = """
import sys, torch
from scratch_dl import kernels, nn
kernels.use("native")
x, y = torch.ones(1, 2, 3, 3), torch.ones(1, 2, 3, 3, device="meta")
conv, relu, sigmoid, loss = nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Sigmoid(), nn.MSELoss()
wide = nn.Conv2d(2, 2, 1)
wide.bias.value = wide.bias.value.double()
try:
    {"conv": lambda: (conv(x), conv.backward(y)), "relu": lambda: (relu(x), relu.backward(y)),
     "sigmoid": lambda: (sigmoid(x), sigmoid.backward(y)), "loss": lambda: loss(x, y),
     "bias": lambda: wide(x)}[sys.argv[1]]()
except (TypeError, RuntimeError, ValueError) as error:
    print("refused:", error)
"""


@pytest.mark.parametrize("what", ["conv", "relu", "sigmoid", "loss", "bias"])
def test_tensors_of_two_devices_or_dtypes_are_refused_and_never_read(what):
    """In a process of its own: reading another device's memory would end it. A bias may have been given any dtype."""
    done = preloaded.run(
        [sys.executable, "-c", MIXED, what], text=True, capture_output=True, timeout=100, check=False
    )  # fmt: skip
    assert done.returncode == 0, f"status {done.returncode}: {done.stderr}"
    assert done.stdout.startswith("refused: "), done.stdout


@pytest.mark.usefixtures("library_here")
def test_a_plan_is_made_once_for_each_shape():
    kernels.use("native")
    x, w = images()
    for made in (plans.gather, plans.correlate):
        made.cache_clear()
    for _ in range(3):
        kernels.convolution(x, w, None, GEOMETRY)
        kernels.convolution_grad_weight(x, x, GEOMETRY)
    assert (plans.gather.cache_info().misses, plans.gather.cache_info().hits) == (1, 2)
    assert (plans.correlate.cache_info().misses, plans.correlate.cache_info().hits) == (1, 2)
    kernels.convolution(x[:1], w, None, GEOMETRY)
    assert plans.gather.cache_info().misses == 2


@pytest.mark.usefixtures("library_here")
def test_plans_that_were_dropped_are_made_again():
    """More shapes than are kept at once, and the first one again."""
    kernels.use("native portable")
    w = torch.ones(1, 1, 1, 1)
    geometry = Geometry((1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1))
    plans.gather.cache_clear()
    for width in [*range(1, plans.gather.cache_info().maxsize + 10), 1]:
        assert kernels.convolution(torch.ones(1, 1, 1, width), w, None, geometry).sum() == width
    assert plans.gather.cache_info().currsize == plans.gather.cache_info().maxsize


def build(tmp_path, *words, **environment):
    return subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--build-temp", str(tmp_path / "temp"), *words],
        cwd=ROOT, env={**os.environ, **environment}, text=True, capture_output=True, timeout=100, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("inplace", [False, True], ids=["wheel", "editable"])
def test_without_a_compiler_the_build_succeeds_and_says_so_in_one_line(inplace, tmp_path):
    where = ["--inplace"] if inplace else ["--build-lib", str(tmp_path / "lib")]
    done = build(tmp_path, *where, CC="/nonexistent/cc", CXX="/nonexistent/c++")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("scratch_dl: ")]
    assert len(said) == 1, done.stderr
    assert "native kernels could not be built, so it will run on reference" in said[0]
    assert "/nonexistent/c" in said[0]
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".so", ".o")]
