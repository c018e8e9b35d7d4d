"""Every entry of a YAML file has its line, whatever YAML's ways to write it."""

from __future__ import annotations

import pytest
import yaml

from atk_perception.yaml_lines import YamlLines

TEXT = """# a comment
arm: {joints: [a,
               b], rate: 5}
base: &base
  size: 1
left:
  <<: *base
  size: 2
right: *base
loop: &loop [*loop]
"""


def test_entries_have_their_lines_in_blocks_flows_and_aliases():
    lines = YamlLines.parse(TEXT)
    for location, line in (
        ((), 2),
        (("arm",), 2),
        (("arm", "joints", 0), 2),
        (("arm", "joints", 1), 3),
        (("arm", "rate"), 3),
        (("left", "size"), 8),
        (("right",), 9),
        # What the file does not hold is where it would be.
        (("right", "size"), 9),
        (("arm", "joints", 7), 2),
        (("nowhere",), 2),
    ):
        assert lines.line_of(location) == line, location
        assert lines.where(location) == f" (line {line})"
    assert lines.content["left"] == {"size": 2}


def test_an_empty_file_has_no_line():
    assert YamlLines.parse("# nothing\n").where(("arm",)) == ""


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3\n", "a:\n  b: 1\n  'b': 2\n", "[{a: 1,\n  b: 1,\na: 2}]"])
def test_an_entry_that_is_given_twice_is_refused_with_both_lines(text):
    last = text.rstrip("\n").count("\n") + 1
    with pytest.raises(yaml.YAMLError, match=rf"is given twice, first in line \d(.|\n)*line {last}, column"):
        YamlLines.parse(text)
