"""A YAML file as plain values, with the place of each of them and everything that is wrong in it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from yaml.constructor import SafeConstructor

Key = tuple[str | int, ...]
"""Where a value stands: `("servers", 0, "url")`."""
Place = tuple[int, int]
"""Line and column, both from 1."""
Problem = tuple[Place, Key, str]


@dataclass(frozen=True, slots=True)
class Document:
    """What a file holds: `values` (None where it is empty) and the places of all that it names."""

    values: object
    places: dict[Key, Place]
    problems: list[Problem]

    def place(self, key: Key) -> Place:
        """Where `key` stands, or what is nearest around it."""
        while key and key not in self.places:
            key = key[:-1]
        return self.places.get(key, (1, 1))


class NotYamlError(Exception):
    """The text is no YAML; `str()` says what is wrong without repeating any of it."""

    def __init__(self, text: str, place: Place = (1, 1)) -> None:
        super().__init__(text)
        self.place = place


def read(path: Path) -> Document:
    """The file's values; raises `NotYamlError` where it is no YAML, `OSError` where it cannot be read."""
    try:
        root = yaml.compose(path.read_bytes(), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise NotYamlError(_safe(error.problem or "not YAML"), _place(mark) if mark else (1, 1)) from None
    except yaml.YAMLError:
        raise NotYamlError("holds characters that are not allowed, or is not UTF-8") from None
    except RecursionError:
        raise NotYamlError("is nested too deeply") from None
    tree = _Tree()
    return Document(tree.value(root, ()) if root is not None else None, tree.places, tree.problems)


@dataclass(slots=True)
class _Tree:
    """The walk over the nodes of one file."""

    places: dict[Key, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    above: list[yaml.Node] = field(default_factory=list)
    constructor: SafeConstructor = field(default_factory=SafeConstructor)

    def value(self, node: yaml.Node, key: Key) -> object:
        self.places.setdefault(key, _place(node.start_mark))
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, key)
        if any(node is outer for outer in self.above):
            self.problems.append((self.places[key], key, "refers to itself"))
            return None
        self.above.append(node)
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*key, place)) for place, item in enumerate(node.value)]
            return dict(self._entries(node, key))
        finally:
            self.above.pop()

    def _scalar(self, node: yaml.ScalarNode, key: Key) -> object:
        try:
            return self.constructor.construct_object(node)
        except (yaml.YAMLError, ValueError):
            what = "is of no known kind; text that looks like something else needs quotes"
            self.problems.append((self.places[key], key, what))
            return None

    def _entries(self, node: yaml.Node, key: Key) -> Iterator[tuple[str, object]]:
        seen: dict[str, int] = {}
        for name_node, value_node in node.value:
            name, place = name_node.value, _place(name_node.start_mark)
            if not isinstance(name_node, yaml.ScalarNode) or name_node.tag != "tag:yaml.org,2002:str":
                self.problems.append((place, key, "a key must be text"))
            elif name in seen:
                self.problems.append((place, (*key, name), f"stands twice, first in line {seen[name]}"))
            else:
                seen[name] = place[0]
                self.places[(*key, name)] = place
                yield name, self.value(value_node, (*key, name))


def _place(mark: yaml.Mark) -> Place:
    return mark.line + 1, mark.column + 1


def _safe(problem: str) -> str:
    """The parser's words without what it quotes from the file, which may be a secret."""
    if "alias" in problem:
        return "a value that begins with * needs quotes"
    return re.sub(r" '(?!<)[^']{2,}'", "", problem)
