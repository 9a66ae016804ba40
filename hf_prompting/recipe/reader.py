"""Read a recipe: a YAML file, ``--set`` overrides and ``--smoke``, into the schema's dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from hf_prompting.errors import RecipeError
from hf_prompting.recipe.conversion import SET_PREFIX, Converter, Problem, Unusable, place_of, takes_text
from hf_prompting.recipe.schema import Recipe, limits_of

RECIPE_FILE = "recipe.yaml"
SMOKE = "smoke"
_NOT_TEXT = ("", "~", "null")  # YAML for no value


@dataclass(frozen=True)
class ReadRecipe:
    """A recipe and where each of its values stands.

    Attributes:
        recipe: the values; paths to files are absolute.
        file: the recipe file.
        places: dotted key -> ``recipe.yaml:12`` or ``--set a.b``.
    """

    recipe: Recipe
    file: Path
    places: Mapping[str, str]

    def problem(self, key: str, text: str) -> Problem:
        """Return a problem at the place of a key, or of the nearest section that the file has."""
        while key and key not in self.places:
            key = key.rpartition(".")[0]
        return Problem(self.places.get(key, self.file.name), text)

    def public_values(self) -> dict[str, Any]:
        """Return the recipe as plain values that may be published: no path of this machine, nothing that is unset."""
        return _public(self.recipe, self.file.parent)


def read_recipe(path: str | Path, *, overrides: Sequence[str] = (), smoke: bool = False) -> ReadRecipe:
    """Read a recipe.

    Args:
        path: a folder with ``recipe.yaml``, or a YAML file.
        overrides: texts such as ``training.learning_rate=0.1``; the key must exist. The value is YAML, but where the
            key holds a text, that text is taken as written unless it begins with a quote: ``template={text} It{mask}``.
        smoke: apply the recipe's ``smoke`` section (before the overrides).
    Returns:
        The recipe. Paths are resolved: those in the file from its folder, those of overrides from the working
        directory, ``output.dir`` always from the working directory.
    Raises:
        RecipeError: lists every mistake with its line.
    Example:
        >>> read_recipe("recipes/movie-reviews-soft-prompt").recipe.name  # doctest: +SKIP
        'movie-reviews-soft-prompt'
    """
    file = _recipe_file(Path(path).expanduser())
    root = _compose(_read_text(file), file.name)
    if not isinstance(root, yaml.MappingNode):
        raise RecipeError(f"{file.name}: a recipe is a mapping of sections such as data, template and training")
    sections = [child for key, child in root.value if key.value == SMOKE]
    plain = _mapping_like(root, [(key, child) for key, child in root.value if key.value != SMOKE])
    problems: list[Problem] = []
    if len(sections) > 1:
        problems.append(Problem(place_of(sections[1]), "key 'smoke' is there twice; keep one"))
    with_smoke = plain
    for section in sections[:1]:
        if isinstance(section, yaml.MappingNode):
            with_smoke = _merged(plain, section)
        else:
            problems.append(Problem(place_of(section), "smoke needs a mapping with the same keys as the recipe"))
    override_nodes = list(_override_nodes(overrides, problems))
    chosen, other = (with_smoke, plain) if smoke else (plain, with_smoke)
    recipe, converter = _convert(chosen, override_nodes, file.parent.absolute(), problems)
    _convert(other, override_nodes, file.parent.absolute(), problems)
    if recipe is None or problems:
        raise RecipeError(list_problems(file.name, problems))
    return ReadRecipe(recipe, file, converter.places)


def list_problems(name: str, problems: Iterable[Problem]) -> str:
    """Word one problem as one line, several as a list; the same problem is said once.

    Example:
        >>> list_problems("recipe.yaml", [Problem("recipe.yaml:3", "template is empty")])
        'recipe.yaml:3: template is empty'
    """
    lines = list(dict.fromkeys(str(problem) for problem in problems))
    return lines[0] if len(lines) == 1 else "\n  ".join([f"{name} has {len(lines)} problems:", *lines])


def _recipe_file(path: Path) -> Path:
    file = path / RECIPE_FILE if path.is_dir() else path
    if not file.is_file():
        raise RecipeError(f"no recipe at {file}; give a folder with {RECIPE_FILE}, or a YAML file")
    return file


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{file.name}: byte {error.start + 1} is not UTF-8; save the file as UTF-8") from error
    except OSError as error:
        raise RecipeError(f"{file} cannot be read: {error.strerror}") from error


def _compose(text: str, name: str) -> yaml.Node | None:
    try:
        loader = yaml.SafeLoader(text)
        loader.name = name
        node: yaml.Node | None = loader.get_single_node()
        return node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if name.startswith(SET_PREFIX) or mark is None else f":{mark.line + 1}"
        quotes = "; put the value in quotes" if name.startswith(SET_PREFIX) else ""
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise RecipeError(f"{name}{line}: not valid YAML: {what}{quotes}") from error
    except yaml.reader.ReaderError as error:
        line_number = text.count("\n", 0, text.find(chr(error.character))) + 1
        raise RecipeError(f"{name}:{line_number}: the character U+{error.character:04X} is not allowed") from error
    except RecursionError as error:
        raise RecipeError(f"{name}: nested too deeply for a recipe") from error


def _override_nodes(overrides: Sequence[str], problems: list[Problem]) -> Iterable[tuple[list[str], yaml.Node]]:
    for override in overrides:
        key, equals, value = override.partition("=")
        key = key.strip()
        name = f"{SET_PREFIX}{key}"
        if not equals or not key or not all(key.split(".")):
            problems.append(Problem(f"{SET_PREFIX}{override}", "write it as key=value, such as training.max_steps=20"))
            continue
        if takes_text(Recipe, key.split(".")) and value.strip().lower() not in _NOT_TEXT and value[0] not in "\"'":
            mark = yaml.Mark(name, 0, 0, 0, None, 0)
            yield key.split("."), yaml.ScalarNode("tag:yaml.org,2002:str", value, mark, mark)
            continue
        try:
            node = _compose(value, name)
        except RecipeError as error:
            problems.append(Problem(name, str(error).removeprefix(f"{name}: ")))
            continue
        if node is None:
            mark = yaml.Mark(name, 0, 0, 0, None, 0)
            node = yaml.ScalarNode("tag:yaml.org,2002:null", "", mark, mark)
        yield key.split("."), node


def _convert(
    root: yaml.MappingNode,
    overrides: Sequence[tuple[list[str], yaml.Node]],
    folder: Path,
    problems: list[Problem],
) -> tuple[Recipe | None, Converter]:
    for keys, node in overrides:
        root = _with_override(root, keys, node, problems)
    converter = Converter(folder)
    recipe: Recipe | None = None
    try:
        recipe = converter.section(root, Recipe, "")
    except Unusable:
        pass
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problems.append(Problem(place_of(root), f"a value cannot be read: {error}"))
    problems += [problem for problem in converter.problems if problem not in problems]
    return recipe, converter


def _with_override(
    root: yaml.MappingNode, keys: Sequence[str], node: yaml.Node, problems: list[Problem]
) -> yaml.MappingNode:
    """Return a copy of a mapping with one value replaced or added; nothing of the given tree changes."""
    first, rest = keys[0], keys[1:]
    old = next((child for key, child in root.value if key.value == first), None)
    new = node
    if rest:
        if old is not None and not isinstance(old, yaml.MappingNode):
            problems.append(Problem(str(node.start_mark.name), f"{first!r} is a single value without keys inside"))
            return root
        inner = old or yaml.MappingNode("tag:yaml.org,2002:map", [], node.start_mark, node.end_mark)
        new = _with_override(inner, rest, node, problems)
    return _replaced(root, first, new)


def _replaced(root: yaml.MappingNode, name: str, child: yaml.Node) -> yaml.MappingNode:
    if not any(key.value == name for key, _ in root.value):
        key = yaml.ScalarNode("tag:yaml.org,2002:str", name, child.start_mark, child.end_mark)
        return _mapping_like(root, [*root.value, (key, child)])
    return _mapping_like(root, [(key, child if key.value == name else old) for key, old in root.value])


def _merged(root: yaml.MappingNode, over: yaml.MappingNode) -> yaml.MappingNode:
    """Lay one mapping over another: sections are merged key by key, all else is replaced."""
    for key, child in over.value:
        old = next((node for name, node in root.value if name.value == key.value), None)
        both = isinstance(old, yaml.MappingNode) and isinstance(child, yaml.MappingNode)
        if old is None:
            root = _mapping_like(root, [*root.value, (key, child)])
        else:
            root = _replaced(root, key.value, _merged(old, child) if both else child)
    return root


def _mapping_like(node: yaml.MappingNode, entries: list[tuple[yaml.Node, yaml.Node]]) -> yaml.MappingNode:
    return yaml.MappingNode(node.tag, entries, node.start_mark, node.end_mark, node.flow_style)


def _public(section: Any, folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if value is None or value == "" or value == () or value == {}:
            continue
        if limits_of(field).path or field.name == "id":
            value = _public_path(value, folder)
        if field.name == "arguments":
            value = {
                key: _public_path(child, folder) if isinstance(child, str) else child for key, child in value.items()
            }
        values[field.name] = _plain(value, folder)
    return values


def _plain(value: Any, folder: Path) -> Any:
    if dataclasses.is_dataclass(value):
        return _public(value, folder)
    if isinstance(value, Mapping):
        return {str(key): _plain(child, folder) for key, child in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(child, folder) for child in value]
    return value


def _public_path(value: str, folder: Path) -> str:
    path = Path(value)
    if not path.is_absolute():
        return value
    return str(path.relative_to(folder.absolute())) if path.is_relative_to(folder.absolute()) else path.name


SectionType = TypeVar("SectionType")


def read_section(file: Path, section: type[SectionType], *, smoke: bool = False) -> SectionType:
    """Read a YAML file of another kind, such as a benchmark's settings, by the rules of a recipe.

    Args:
        file: the YAML file.
        section: frozen dataclass of its keys.
        smoke: apply the file's ``smoke`` section.
    Raises:
        RecipeError: lists every mistake with its line.
    Example:
        >>> read_section(Path("recipes/benchmarks/prompt.yaml"), PromptBenchmark).num_rounds  # doctest: +SKIP
        5
    """
    root = _compose(_read_text(_recipe_file(file)), file.name)
    if not isinstance(root, yaml.MappingNode):
        raise RecipeError(f"{file.name}: a mapping of settings is needed")
    over = next((child for key, child in root.value if key.value == SMOKE), None)
    plain = _mapping_like(root, [(key, child) for key, child in root.value if key.value != SMOKE])
    if smoke and isinstance(over, yaml.MappingNode):
        plain = _merged(plain, over)
    converter = Converter(file.parent.absolute())
    try:
        return converter.section(plain, section, "")  # type: ignore[no-any-return]
    except Unusable:
        raise RecipeError(list_problems(file.name, converter.problems)) from None
