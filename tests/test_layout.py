"""Imports point one way, what lies flat can be typed or named in a config, and files and functions stay small."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import scratch_dl

ROOT = Path(scratch_dl.__file__).parent
STUDIES = Path(__file__).parents[1] / "experiments"
MOST_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS, MOST_FLAT = 300, 50, 7, 18
# Functions with more parameters, and why.
WIDE = {
    "nn.conv.__init__": "PyTorch's arguments",
    "nn.upsampling.__init__": "PyTorch's arguments, and the paper's modes",
    "models.paper": "an argument for each setting of conf/model/paper.yaml",
    "models.unet": "an argument for each setting of conf/model/unet.yaml",
    "data.photos.__init__": "an argument for each setting of conf/data/photos.yaml",
    "data.folder.__init__": "an argument for each setting of conf/data/folder.yaml",
    "data.course.__init__": "an argument for each setting of conf/data/course.yaml",
    "data.pictures.__init__": "the settings that photos and folder share",
    "kernels.reference.adam": "the quantities of the algorithm",
    "kernels.pointwise.adam": "the same as in kernels.reference",
    "kernels.plans.gather": "what determines a plan, by which it is cached",
    "verification.passes.compare": "said in its docstring",
}
# From what knows nothing of networks to what one can type. Modules that stand side by side share a line.
ORDER = [
    *("system", "terminal", "kernels", "nn"),
    *("models", "optim", "schedule"),
    *("data", "evaluation", "faults", "config", "tracking", "verification", "diagnosis", "cli", "training"),
    *("denoising", "comparison", "search", "paper", "benchmarks", "course"),
    *("train", "verify", "diagnose", "denoise", "compare", "register", "evaluate", "bench", "runs", "delete", "ui"),
    "__main__",
]


def imported(path):
    """The modules of this package that a file imports, wherever in it, those for type checking left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unused = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node not in unused and (node.module or "").startswith("scratch_dl"):
            for name in node.names:
                file = ROOT.joinpath(*f"{node.module}.{name.name}".split(".")[1:])
                found = file if file.with_suffix(".py").exists() or file.is_dir() else file.parent
                if found != ROOT:
                    yield ".".join(found.relative_to(ROOT).parts)


FILES = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in ROOT.rglob("*.py")}


def test_no_package_imports_from_one_above_it():
    known = {name: place for place, name in enumerate(ORDER)}
    wrong = [
        f"{importer} imports {target}"
        for importer, path in FILES.items()
        if importer != "__init__"
        for target in imported(path)
        if known[target.split(".")[0]] > known[importer.split(".")[0]]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_two_files_import_each_other():
    """A package that its own files import from, as `nn` is, would be a circle only by what its `__init__` collects."""
    graph = {name: {target for target in imported(path) if target != name} for name, path in FILES.items()}
    TopologicalSorter({name: graph[name] - {name.rpartition(".")[0]} for name in graph}).prepare()


def test_few_modules_lie_flat():
    assert len([name for name, path in FILES.items() if path.parent == ROOT and path.name != "__init__.py"]) < MOST_FLAT


@pytest.mark.parametrize("folder", [ROOT, STUDIES], ids=["src", "experiments"])
def test_files_and_functions_stay_small(folder):
    wrong = [found for path in sorted(folder.rglob("*.py")) for found in too_large(path)]
    assert not wrong, "\n".join(wrong)


def too_large(path):
    """A line for whatever is too large in a file; a function's docstring does not count."""
    text = path.read_text(encoding="utf-8")
    place = ".".join(path.relative_to(ROOT).with_suffix("").parts) if path.is_relative_to(ROOT) else str(path)
    if (lines := len(text.splitlines())) > MOST_LINES:
        yield f"{place} has {lines} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            docstring = len((ast.get_docstring(node, clean=False) or "").splitlines())
            if (lines := node.end_lineno - node.lineno + 1 - docstring) > MOST_FUNCTION_LINES:
                yield f"{place}.{node.name} has {lines} lines"
            given = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            parameters = len([name for name in given if name not in ("self", "cls")])
            if parameters > MOST_PARAMETERS and f"{place}.{node.name}" not in WIDE:
                yield f"{place}.{node.name} has {parameters} parameters"
