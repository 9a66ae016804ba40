"""From YAML nodes to the schema's dataclasses, collecting every problem with its line."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union

import yaml

from hf_prompting.errors import did_you_mean
from hf_prompting.recipe.schema import Limits, limits_of

SET_PREFIX = "--set "


class Problem(NamedTuple):
    """One mistake: where it stands and what it is."""

    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


def place_of(node: yaml.Node) -> str:
    """Return ``recipe.yaml:12`` for a node of the file and ``--set a.b`` for one of the command line."""
    name = str(node.start_mark.name)
    return name if name.startswith(SET_PREFIX) else f"{name}:{node.start_mark.line + 1}"


class Converter:
    """Walk a node tree along the schema's types.

    Attributes:
        problems: what was wrong so far, in the order met.
        places: dotted key -> place, for later checks.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problems: list[Problem] = []
        self.places: dict[str, str] = {}
        self._loader = yaml.SafeLoader("")

    def convert(self, node: yaml.Node, hint: Any, path: str, limits: Limits) -> Any:
        """Return the value of a node as the type says.

        Raises:
            Unusable: after the problem was noted.
        """
        self.places[path] = place_of(node)
        options = _options(hint)
        if _is_null(node):
            if type(None) in options:
                return None
            raise self._unusable(node, path, f"is empty; {_wanted(options)} is needed")
        self._check_tag(node, path)
        for option in options:
            if _fits(node, option, limits):
                return self._limited(self._as(node, option, path, limits), node, path, limits)
        raise self._unusable(node, path, f"is {self._shown(node)}; {_wanted(options)} is needed")

    def section(self, node: yaml.Node, section: type[Any], path: str) -> Any:
        """Return a dataclass from a mapping; all of its problems are noted before giving up."""
        hints = typing.get_type_hints(section)
        fields = {field.name: field for field in dataclasses.fields(section)}
        values: dict[str, Any] = {}
        failed = False
        for key, child in self._entries(node, path):
            inner = f"{path}.{key.value}" if path else str(key.value)
            if key.value not in fields:
                where = f"in {path}" if path else "at the top"
                near = did_you_mean(str(key.value), fields) or f" Allowed: {', '.join(fields)}."
                self.problems.append(Problem(place_of(key), f"unknown key {str(key.value)!r} {where}.{near}"))
                failed = True
                continue
            try:
                values[key.value] = self.convert(child, hints[key.value], inner, limits_of(fields[key.value]))
            except Unusable:
                failed = True
            self.places[inner] = place_of(key) if not place_of(child).startswith(SET_PREFIX) else place_of(child)
        for name, field in fields.items():
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            if required and name not in values and not any(key.value == name for key, _ in node.value):
                inner = f"{path}.{name}" if path else name
                self.problems.append(Problem(place_of(node), f"{inner} is missing; it has no default"))
                failed = True
        if failed:
            raise Unusable
        return section(**values)

    def _limited(self, value: Any, node: yaml.Node, path: str, limits: Limits) -> Any:
        problem = limits.problem(value)
        if problem:
            raise self._unusable(node, path, problem)
        if limits.path and isinstance(value, str):
            return self._resolved(value, node, limits.path)
        return value

    def _as(self, node: yaml.Node, hint: Any, path: str, limits: Limits) -> Any:
        if dataclasses.is_dataclass(hint):
            return self.section(node, typing.cast(type[Any], hint), path)
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin is tuple:
            inner = dataclasses.replace(limits, not_empty=False)
            children = node.value if isinstance(node, yaml.SequenceNode) else [node]
            return tuple(
                self._collected(
                    (child, arguments[0], f"{path}[{number}]" if len(children) > 1 else path, inner)
                    for number, child in enumerate(children)
                )
            )
        if origin is Mapping:
            return self._mapping(node, arguments[1], path, limits)
        if hint is float:
            is_text = str(node.tag).endswith(":str")
            return float(str(node.value).replace("_", "") if is_text else self._loader.construct_object(node))
        if hint is str and limits.as_written:
            return str(node.value)
        return self._loader.construct_object(node, deep=True)

    def _mapping(self, node: yaml.Node, hint: Any, path: str, limits: Limits) -> dict[str, Any]:
        entries = self._entries(node, path)
        if hint is Any:
            for _, child in entries:
                self._check_plain(child, path)
            return {key.value: self._loader.construct_object(child, deep=True) for key, child in entries}
        inner = dataclasses.replace(limits, not_empty=True)
        values = self._collected((child, hint, f"{path}.{key.value}", inner) for key, child in entries)
        return {key.value: value for (key, _), value in zip(entries, values, strict=True)}

    def _collected(self, children: Any) -> list[Any]:
        values, failed = [], False
        for child in children:
            try:
                values.append(self.convert(*child))
            except Unusable:
                failed = True
        if failed:
            raise Unusable
        return values

    def _entries(self, node: yaml.Node, path: str) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
        """Return a mapping's entries, without those whose key is not a text or was there before."""
        seen: dict[str, str] = {}
        entries = []
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.problems.append(Problem(place_of(key), f"a key in {path or 'the recipe'} is not a text"))
            elif key.value in seen:
                self.problems.append(
                    Problem(place_of(key), f"key {key.value!r} is there twice (first at {seen[key.value]}); keep one")
                )
            else:
                seen[key.value] = place_of(key)
                entries.append((key, child))
        return entries

    def _check_plain(self, node: yaml.Node, path: str, depth: int = 0) -> None:
        self._check_tag(node, path)
        if depth > 20:
            raise self._unusable(node, path, "is nested too deeply")
        if isinstance(node, yaml.MappingNode):
            for _, child in self._entries(node, path):
                self._check_plain(child, path, depth + 1)
        elif isinstance(node, yaml.SequenceNode):
            for child in node.value:
                self._check_plain(child, path, depth + 1)

    def _check_tag(self, node: yaml.Node, path: str) -> None:
        kind = str(node.tag).removeprefix("tag:yaml.org,2002:")
        if kind not in {"map", "seq", "str", "int", "float", "bool", "null", "timestamp"}:
            raise self._unusable(node, path, f"has the tag {node.tag!r}; only plain YAML is read")

    def _resolved(self, value: str, node: yaml.Node, kind: str) -> str:
        """Make a path absolute. An input that does not exist stays as written: it may be an id on the Hub."""
        from_command_line = place_of(node).startswith(SET_PREFIX)
        origin = Path.cwd() if from_command_line or kind == "output" else self.folder
        found = origin / Path(value).expanduser()
        is_plain_name = not value.startswith((".", "/", "~"))
        return value if kind == "input" and is_plain_name and not found.exists() else str(found)

    def _shown(self, node: yaml.Node) -> str:
        if isinstance(node, yaml.MappingNode):
            return "a mapping (put a text with braces in quotes)"
        if isinstance(node, yaml.SequenceNode):
            return "a list"
        kind = {"str": "text", "bool": "yes/no value", "int": "number", "float": "number"}
        return f"the {kind.get(str(node.tag).rpartition(':')[2], 'value')} {str(node.value)[:60]!r}"

    def _unusable(self, node: yaml.Node, path: str, text: str) -> Unusable:
        self.problems.append(Problem(place_of(node), f"{path} {text}"))
        return Unusable()


def takes_text(section: type[Any], keys: Sequence[str]) -> bool:
    """Tell whether a dotted key of the schema holds a text, so that a value on the command line needs no quotes.

    Example:
        >>> takes_text(Recipe, ["data", "path"]), takes_text(Recipe, ["data", "shots"])  # doctest: +SKIP
        (True, False)
    """
    hint: Any = section
    for key in keys:
        options = _options(typing.get_type_hints(hint).get(key)) if dataclasses.is_dataclass(hint) else ()
        hint = next((option for option in options if option is str or dataclasses.is_dataclass(option)), None)
    return hint is str


class Unusable(Exception):
    """A value could not be made; its problem has been noted. Never leaves this package."""


def _options(hint: Any) -> Sequence[Any]:
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and bool(node.tag == "tag:yaml.org,2002:null")


def _fits(node: yaml.Node, hint: Any, limits: Limits) -> bool:
    origin = typing.get_origin(hint)
    if origin is tuple:
        inner = typing.get_args(hint)[0]
        return isinstance(node, yaml.SequenceNode) or _fits(node, inner, limits)
    if origin is Mapping or dataclasses.is_dataclass(hint):
        return isinstance(node, yaml.MappingNode)
    if not isinstance(node, yaml.ScalarNode):
        return False
    kind = str(node.tag).rpartition(":")[2]
    if origin is Literal:
        return node.value in typing.get_args(hint)
    if hint is float:
        return kind in {"int", "float"} or (kind == "str" and node.style is None and _is_number(str(node.value)))
    if hint is str:
        return limits.as_written or kind == "str"
    return kind == {int: "int", bool: "bool"}.get(hint)


def _is_number(text: str) -> bool:
    """Tell whether an unquoted text is a number to its writer; YAML 1.1 takes ``1e-3`` for a text."""
    try:
        float(text.replace("_", ""))
    except ValueError:
        return False
    return True


def _wanted(options: Sequence[Any]) -> str:
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}
    words = []
    for option in options:
        origin, arguments = typing.get_origin(option), typing.get_args(option)
        if origin is Literal:
            words.append(f"one of {', '.join(arguments)}")
        elif origin is tuple:
            words.append("a list")
        elif origin is Mapping or dataclasses.is_dataclass(option):
            words.append("a mapping")
        else:
            words.append(names[option])
    return " or ".join(words)
