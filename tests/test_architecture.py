"""The folders of the package form layers, and imports point down only."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import hf_prompting

ROOT = Path(hf_prompting.__file__).parent
# Lowest first. A folder imports only lower ones or itself; the README's map has the same order.
LAYERS = (
    "errors",
    "checksums",
    "cpu_products",
    "processes",
    "templates",
    "verbalizers",
    "soft_prompts",
    "seq2seq",
    "bases",
    "data",
    "classifier",
    "training",
    "evaluation",
    "artifacts",
    "recipe",
    "benchmarks",
    "demo",
    "cli",
)
FILES = sorted(ROOT.rglob("*.py"))


def layer_of(parts: tuple[str, ...]) -> str | None:
    """Return the layer of a path below the package; None for the package's own files."""
    name = parts[0].removesuffix(".py")
    return None if name in ("__init__", "__main__") else name


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; write the full name"
            assert not any(alias.name == "*" for alias in node.names), f"{path}:{node.lineno} imports *"
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_folder_and_file_has_a_layer() -> None:
    found = {layer_of(path.relative_to(ROOT).parts) for path in FILES} - {None}
    assert found == set(LAYERS)


def test_a_wheel_has_all_that_is_not_python() -> None:
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))
    others = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert set(project["tool"]["setuptools"]["package-data"]["hf_prompting"]) == others


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down_only(path: Path) -> None:
    own = layer_of(path.relative_to(ROOT).parts)
    if own is None:
        return  # the package's own __init__ and __main__ stand above all layers
    for module in imported_modules(path):
        assert module != "hf_prompting", f"{path} imports the package itself; name the folder"
        if module.startswith("hf_prompting."):
            other = module.split(".")[1]
            assert LAYERS.index(other) <= LAYERS.index(own), f"{path} ({own}) imports upward: {module}"


def test_no_two_files_import_each_other_in_a_circle() -> None:
    graph = {}
    for path in FILES:
        name = ".".join(["hf_prompting", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")
        graph[name] = {module for module in imported_modules(path) if module.startswith("hf_prompting.")}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"import cycle: {' -> '.join([*trail, name])}"
        if name not in done:
            for other in graph.get(name, ()):
                if other in graph:
                    visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_executed_or_unpickled(path: Path) -> None:
    forbidden = {"eval", "exec", "compile", "__import__"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in forbidden, f"{path}:{node.lineno} calls {node.func.id}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            assert not names & {"pickle", "marshal", "shelve", "dill"}, f"{path}:{node.lineno} imports a pickle"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("torch", "load"), ("yaml", "load")}, f"{path}:{node.lineno}"
