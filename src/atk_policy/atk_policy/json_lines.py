"""Results as they come, a JSON object a line: whoever is killed in the middle of one loses that one alone."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_json_lines(file: Path) -> list[dict[str, Any]]:
    """Every line of a file, none where there is no file; a line that a kill cut short does not count."""
    rows = []
    for line in file.read_text().splitlines() if file.is_file() else ():
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def append_json_line(file: Path, row: Mapping[str, Any]) -> None:
    """Add a line; after one that was cut short a new one is begun."""
    with file.open("ab+") as lines:
        if lines.tell():
            lines.seek(-1, os.SEEK_END)
        cut_short = lines.read(1) not in (b"", b"\n")
        lines.write((("\n" if cut_short else "") + json.dumps(row) + "\n").encode())
