"""The run folder: all that selection hands to the robot (design.md), read and written here only.

keypoints.yaml, template.png   the keypoint set (atk_perception.keypoint_set)
policy.yaml                    policy class and sizes, and what it was trained for
policy.safetensors             weights and normalisation statistics
policy.onnx                    the same as one graph, where 'export_policy' was run (export_onnx.py)
robot.yaml                     the robot description that it was trained with
report/                        pictures and metrics.json, for people
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from atk_perception.keypoint_set import KeypointSet, KeypointSetError
from atk_perception.robot_description import RobotDescription, RobotDescriptionError
from atk_policy.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from atk_policy.policies import make_policy
from atk_policy.policies.encoders import DEFAULT_ENCODER
from atk_policy.policies.protocol import Policy

FORMAT_VERSION = 1
POLICY_FILE = "policy.yaml"
WEIGHTS_FILE = "policy.safetensors"
ONNX_FILE = "policy.onnx"
ROBOT_FILE = "robot.yaml"
REPORT_FOLDER = "report"


class RunFolderError(ValueError):
    """A run folder that cannot be used: which file, what it holds, what to do."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PolicyFile(_Model):
    """Schema of policy.yaml, format version 1.

    Attributes:
        policy: name in atk_policy.policies; encoder: in atk_policy.policies.encoders; sizes: arguments of the class
            beyond those below.
        keypoint_set: name of the set whose keypoints it takes, in the order of `keypoint_ids`.
        horizon, history, history_stride: see PolicyConfig.
        ensemble_decay: see ActionQueue.
        execution_horizon: control periods that a chunk is followed before the next is inferred (receding horizon).
        matcher, tracker: names in atk_perception.registry that the training tracks were made with.
        trained: how, for people.
    """

    format_version: int = FORMAT_VERSION
    policy: str
    encoder: str = DEFAULT_ENCODER
    sizes: dict[str, int] = {}
    keypoint_set: str
    keypoint_ids: list[int] = Field(min_length=1)
    horizon: int = Field(ge=1)
    history: int = Field(ge=1)
    history_stride: int = Field(ge=1)
    ensemble_decay: float = Field(ge=0.0)
    execution_horizon: int = Field(default=1, ge=1)
    control_rate_hz: float = Field(gt=0.0)
    joint_names: list[str] = Field(min_length=1)
    camera: str
    image_width: int = Field(gt=0)
    image_height: int = Field(gt=0)
    matcher: str
    tracker: str
    trained: dict[str, Any] = {}

    @model_validator(mode="after")
    def _reaches(self) -> PolicyFile:
        check_execution_horizon(self.execution_horizon, self.horizon)
        return self


def check_execution_horizon(execution_horizon: int, horizon: int) -> None:
    """Refuse to follow a chunk for longer than it is.

    Raises:
        ValueError: naming both.
    """
    if execution_horizon > horizon:
        raise ValueError(
            f"execution_horizon is {execution_horizon}, but a chunk has only {horizon} actions (horizon); "
            f"give 1 to {horizon}"
        )


@dataclass(frozen=True, eq=False)
class RunFolder:
    """A keypoint set, the policy that takes it, and the robot that both were made for."""

    path: Path
    keypoint_set: KeypointSet
    policy: Policy
    file: PolicyFile
    robot: RobotDescription

    def save(self) -> None:
        """Write everything but the report into `path`."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.keypoint_set.save(self.path)
        save_checkpoint(self.path / WEIGHTS_FILE, self.policy.state_dict(), {})
        (self.path / ROBOT_FILE).write_text(self.robot.dump())
        text = yaml.safe_dump(
            self.file.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=110
        )
        (self.path / POLICY_FILE).write_text(text)

    @classmethod
    def load(cls, path: Path | str) -> RunFolder:
        """Read and check a run folder.

        Raises:
            RunFolderError: a file is missing, damaged, of another format version, or does not fit
                the others.
        """
        path = Path(path)
        if not path.is_dir():
            raise RunFolderError(
                f"run folder {path} does not exist; make one with 'ros2 run atk_policy select'"
            )
        file = _load_policy_file(path / POLICY_FILE)
        try:
            keypoint_set = KeypointSet.load(path)
            robot = RobotDescription.load(path / ROBOT_FILE)
        except (KeypointSetError, RobotDescriptionError) as error:
            raise RunFolderError(f"run folder {path}: {error}") from error
        if keypoint_set.ids.tolist() != file.keypoint_ids or keypoint_set.name != file.keypoint_set:
            raise RunFolderError(
                f"run folder {path}: keypoints.yaml holds set '{keypoint_set.name}' with ids {keypoint_set.ids.tolist()}, "
                f"but the policy was trained on '{file.keypoint_set}' with {file.keypoint_ids}. Restore the file, or select again"
            )
        return cls(path, keypoint_set, _load_policy(path / WEIGHTS_FILE, file), file, robot)

    def require_robot(self, robot: RobotDescription) -> None:
        """Refuse a robot on which the policy's commands would mean something else.

        Raises:
            RunFolderError: naming every entry that differs.
        """
        differences = self.robot.differences(robot)
        here, there = self.file, robot.camera
        # Another size of the same aspect ratio is rescaled by the tracker.
        if here.image_width * there.height != here.image_height * there.width:
            differences.append(
                f"camera size: {here.image_width}x{here.image_height} here, {there.width}x{there.height} there"
            )
        if differences:
            raise RunFolderError(
                f"run folder {self.path} was made for robot '{self.robot.name}' and cannot drive '{robot.name}' "
                f"(here: the run folder, there: the robot description): {'; '.join(differences)}. "
                "Correct the robot description, or select with demonstrations of this robot"
            )


def _load_policy_file(path: Path) -> PolicyFile:
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise RunFolderError(
            f"{path} does not exist; a run folder is written by 'ros2 run atk_policy select'. "
            "If the selection was interrupted, run it again: it continues"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path} is not readable YAML: {error}") from error
    if not isinstance(content, dict) or "format_version" not in content:
        raise RunFolderError(f"{path} is no policy file: it has no entry 'format_version'")
    if content["format_version"] != FORMAT_VERSION:
        raise RunFolderError(
            f"{path} has format_version {content['format_version']!r}; this release reads {FORMAT_VERSION}. "
            "Use the release that wrote it, or select again with this one"
        )
    try:
        return PolicyFile.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise RunFolderError(f"{path}: {problems}") from error


def _load_policy(path: Path, file: PolicyFile) -> Policy:
    try:
        policy = make_policy(
            file.policy,
            keypoints=len(file.keypoint_ids),
            joints=len(file.joint_names),
            horizon=file.horizon,
            history=file.history,
            encoder=file.encoder,
            **file.sizes,
        )
        tensors, _ = load_checkpoint(path)
        policy.load_state_dict(tensors)
    except (CheckpointError, ValueError) as error:
        raise RunFolderError(f"run folder {path.parent}: {error}") from error
    except RuntimeError as error:  # torch's answer to names or shapes that do not fit
        raise RunFolderError(f"{path} does not fit {POLICY_FILE}: {error}; copy both files again") from error
    if not all(torch.isfinite(t).all() for t in tensors.values()):
        raise RunFolderError(f"{path} holds weights that are not finite; select again")
    policy.eval()
    return policy
