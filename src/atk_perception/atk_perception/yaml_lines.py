"""A YAML file that knows on which line each of its entries stands, for errors that people can act on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

# Where an entry is in a file: ("joints", "names", 2) is the third item of `names` in `joints`.
Location = Sequence[int | str]


@dataclass(frozen=True)
class YamlLines:
    """What a file holds, and where.

    Attributes:
        content: as `yaml.safe_load` gives it.
        lines: from 1, by location; that of the whole file's content is ().
    """

    content: Any
    lines: Mapping[tuple[int | str, ...], int]

    @classmethod
    def parse(cls, text: str) -> YamlLines:
        """Read one YAML document.

        Raises:
            yaml.YAMLError: it is none, or an entry is given twice, of which YAML's own readers drop the first; the
                message names the line.
        """
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines = _Lines()
        if node is not None:
            lines.note(node, (), node.start_mark.line + 1)
        return cls(yaml.safe_load(text), lines.found)

    def line_of(self, location: Location) -> int | None:
        """The line of the entry, or of the deepest one around it that the file holds; None of an empty file."""
        place = tuple(location)
        known = (self.lines.get(place[:depth]) for depth in range(len(place), -1, -1))
        return next((line for line in known if line is not None), None)

    def where(self, location: Location) -> str:
        """' (line N)', to be put behind what is wrong there; empty where no line is known."""
        line = self.line_of(location)
        return "" if line is None else f" (line {line})"


class _Lines:
    """Lines of the entries of a document, by location."""

    def __init__(self) -> None:
        self.found: dict[tuple[int | str, ...], int] = {}
        self._entered: set[int] = set()

    def note(self, node: yaml.Node, location: tuple[int | str, ...], line: int) -> None:
        self.found[location] = line
        if id(node) in self._entered:  # an alias, which may even be one of what holds it
            return
        self._entered.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                self.note(item, (*location, number), item.start_mark.line + 1)
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue
                place = (*location, key.value)
                if place in self.found:
                    raise yaml.constructor.ConstructorError(
                        problem=f"entry '{key.value}' is given twice, first in line {self.found[place]}; delete one",
                        problem_mark=key.start_mark,
                    )
                self.note(value, place, key.start_mark.line + 1)
