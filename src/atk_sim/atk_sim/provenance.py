"""What a policy was learnt from, so that a result is never added to one that was learnt from something else.

Code counts as far as it is reached: the modules that a method, its task, its matcher and its tracker import, without comments,
docstrings and layout. What draws pictures or reads command lines may change, and nothing is learnt anew.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import platform
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Self

import cv2
import mujoco
import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from atk_perception.public_models import weights_version
from atk_perception.registry import make_matcher, make_tracker
from atk_sim.methods import METHODS
from atk_sim.methods.protocol import Lesson
from atk_sim.tasks import make_task

FORMAT = 1
PACKAGES = ("atk_perception", "atk_policy", "atk_sim")
# Registries import every sibling, of which one is used, and is named beside them; reports are for people.
NOT_FOLLOWED = ("atk_sim.tasks", "atk_sim.methods", "atk_perception.registry", "atk_policy.report")
BAG_FILES = (".mcap", ".db3", ".zstd")


class LearntError(ValueError):
    """A policy that was learnt from something else, or nobody knows from what; the message says what to do."""


class Source(BaseModel):
    """Everything that what is learnt depends on.

    Attributes:
        bags: names of the demonstrations; demonstrations: digest of what they hold.
        servo_noise: that they were recorded with.
        settings: of the selection and training, those that differ from the defaults.
        perception, policy, simulator: digests of the code of each package that takes part, and of weights beside it.
        libraries: versions of those whose numbers end up in a policy.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    method: str
    training_seed: int
    bags: tuple[str, ...]
    demonstrations: str
    servo_noise: float
    settings: dict[str, Any]
    robot: str
    perception: str
    policy: str
    simulator: str
    libraries: dict[str, str]

    @classmethod
    def of(cls, lesson: Lesson, method: str, training_seed: int) -> Self:
        """What `method` would learn from now."""
        settings = lesson.settings
        tracked_by = (make_matcher(settings.matcher), make_tracker(settings.tracker))
        # Perception and policy are the same for every method, so that a report can say whether all had the same.
        stack = _modules(*METHODS.values(), *tracked_by)
        own = _modules(METHODS[method], make_task(lesson.task))
        weights = [weights_version(name) for name in (settings.matcher, settings.tracker)]
        return cls(
            task=lesson.task,
            method=method,
            training_seed=training_seed,
            bags=tuple(bag.name for bag in lesson.bags),
            demonstrations=bags_version(tuple(lesson.bags)),
            servo_noise=lesson.servo_noise,
            settings=settings.model_dump(mode="json", exclude_defaults=True),
            robot=lesson.robot.fingerprint(),
            perception=_digest([code_version("atk_perception", stack), *weights]),
            policy=code_version("atk_policy", stack),
            simulator=code_version("atk_sim", own),
            libraries={
                "python": platform.python_version(),
                "numpy": np.__version__,
                "torch": torch.__version__,
                "opencv": cv2.__version__,
                "mujoco": mujoco.__version__,
            },
        )

    @property
    def digest(self) -> str:
        """One word for all of it."""
        return _digest([json.dumps(self.model_dump(mode="json"), sort_keys=True)])

    def differences(self, other: Source) -> list[str]:
        """Names of the entries that differ, in the order above."""
        return [name for name in type(self).model_fields if getattr(self, name) != getattr(other, name)]


class Learnt(BaseModel):
    """learnt.json: what a method learns from, and how long it took [s]; None while it has not ended."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    digest: str
    source: Source
    seconds: float | None = None

    @classmethod
    def beginning(cls, source: Source) -> Self:
        """What is written before anything else: what an interrupted training left is then known too."""
        return cls(digest=source.digest, source=source)

    def save(self, path: Path) -> None:
        """Write it; there is the old file or the new one, whatever happens."""
        partial = path.with_suffix(".partial")
        partial.write_text(self.model_dump_json(indent=1) + "\n")
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            LearntError: the file does not say what was learnt from.
        """
        try:
            return cls.model_validate_json(path.read_text())
        except (OSError, ValidationError) as error:
            raise LearntError(
                f"{path} does not say what was learnt from: it is of an older version, or damaged. "
                "Give --relearn to learn it anew, or another --output"
            ) from error

    def require(self, now: Source, name: str) -> None:
        """Refuse when `now` differs.

        Raises:
            LearntError: it does; names what.
        """
        if differences := self.source.differences(now):
            raise LearntError(
                f"{name} was learnt from something else: {', '.join(differences)} changed since. Give --relearn to learn "
                "and drive it anew (its episodes are deleted), or another --output"
            )


# ---------------------------------------------------------------------------------------------- digests


def bags_version(bags: tuple[Path, ...]) -> str:
    """Digest of what bags hold."""
    digest = hashlib.sha256()
    for bag in bags:
        for file in sorted(path for path in bag.iterdir() if path.suffix in BAG_FILES):
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def _modules(*used: object) -> frozenset[str]:
    """Where these are defined, and what drives an episode."""
    return frozenset({"atk_sim.rollout", *(type(each).__module__ for each in used)})


@cache
def code_version(package: str, modules: frozenset[str]) -> str:
    """Digest of these modules and all of ours that they import, as far as they are of `package`, and of weights beside them."""
    files = {n: path for n, path in code_files(modules).items() if n.partition(".")[0] == package}
    parts = [f"{name};{_without_words(path)}" for name, path in sorted(files.items())]
    for weights in sorted(
        file for folder in {path.parent for path in files.values()} for file in folder.iterdir()
    ):
        if weights.suffix == ".safetensors":
            with weights.open("rb") as stream:
                parts.append(f"{weights.name};{hashlib.file_digest(stream, 'sha256').hexdigest()}")
    return _digest(parts)


def code_files(modules: Iterable[str]) -> dict[str, Path]:
    """These modules and all of ours that they import, at whatever place in them: files by name."""
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = None if name in found or name in NOT_FOLLOWED else _file_of(name)
        if path is not None:
            found[name] = path
            waiting += _imported(ast.parse(path.read_text()))
    return found


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def _root(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _file_of(name: str) -> Path | None:
    """Of a module of ours; None where it is none, such as a class in one."""
    package, *inside = name.split(".")
    if package not in PACKAGES:
        return None
    path = _root(package).joinpath(*inside)
    return next((f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()), None)


def _without_words(path: Path) -> str:
    """The code of a file, whatever its comments, docstrings and layout."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:]
    return ast.dump(tree)


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:16]
