"""Which matcher and tracker a keypoint set is followed with: those of its run folder, unless somebody says otherwise.

A policy knows the tracks of the backends that it was trained with. Of policy.yaml, which atk_policy writes, their two
names alone are read here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from atk_perception.registry import DEFAULT_MATCHER, DEFAULT_TRACKER

POLICY_FILE = "policy.yaml"
# Of further cameras, inside a run folder.
CAMERAS_FOLDER = "cameras"


class BackendChoiceError(ValueError):
    """A run folder does not say which backends it was made with; the message names the file and what it holds."""


@dataclass(frozen=True)
class Backends:
    """Names in the registry."""

    matcher: str = DEFAULT_MATCHER
    tracker: str = DEFAULT_TRACKER


def trained_backends(folder: Path | str) -> Backends | None:
    """Those of the run folder that a keypoint set lies in; None of a set by itself.

    Args:
        folder: with keypoints.yaml: a run folder, cameras/NAME in one, or a folder of the set alone.

    Raises:
        BackendChoiceError: its policy.yaml cannot be read, or lacks a name.
    """
    folder = Path(folder).absolute()
    run_folder = folder.parents[1] if folder.parent.name == CAMERAS_FOLDER else folder
    path = run_folder / POLICY_FILE
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise BackendChoiceError(
            f"{path} cannot be read: {error}; it says which matcher and tracker the policy was trained with. Copy the "
            "whole run folder again"
        ) from error
    entries = content if isinstance(content, dict) else {}
    names: dict[str, Any] = {}
    for entry in ("matcher", "tracker"):
        name = names[entry] = entries.get(entry)
        if not isinstance(name, str) or not name:
            raise BackendChoiceError(
                f"{path}: '{entry}' is {name!r}; expected the name of the {entry} that the policy was trained with. Copy the "
                "whole run folder again"
            )
    return Backends(**names)


def choose_backends(folder: Path | str, matcher: str = "", tracker: str = "") -> tuple[Backends, str]:
    """What to use, and what is to be said against it.

    Args:
        folder: see `trained_backends`.
        matcher, tracker: names that somebody insists on; empty: those of the run folder, else the defaults.

    Returns:
        The backends, and in words how they differ from those that the policy was trained with; empty where they do not.

    Raises:
        BackendChoiceError: see `trained_backends`.
    """
    trained = trained_backends(folder)
    usual = trained or Backends()
    chosen = Backends(matcher or usual.matcher, tracker or usual.tracker)
    if trained is None or chosen == trained:
        return chosen, ""
    differences = [
        f"{entry} '{mine}' instead of '{its}'"
        for entry, mine, its in (
            ("matcher", chosen.matcher, trained.matcher),
            ("tracker", chosen.tracker, trained.tracker),
        )
        if mine != its
    ]
    return (
        chosen,
        f"{' and '.join(differences)}, which the policy in {folder} was trained with: it never saw such tracks",
    )
