"""Imports point one way: a package imports only from those before it in ORDER, and no two files import each other."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import scratch_dl

ROOT = Path(scratch_dl.__file__).parent
# From what knows nothing of networks to what one can type. Modules that stand side by side share a line.
ORDER = [
    *("system", "terminal", "kernels", "nn"),
    *("models", "optim", "schedule"),
    *("data", "evaluation", "faults", "config", "tracking", "verification", "diagnosis", "cli", "training"),
    *("search", "paper", "benchmarks"),
    *("train", "verify", "diagnose", "evaluate", "bench", "ui", "__main__"),
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
