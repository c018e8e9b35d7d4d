"""The run folder: all that selection hands to the robot (design.md), read and written here only.

keypoints.yaml, template.png   the keypoint set (atk_perception.keypoint_set)
cameras/NAME/                  the same of each further camera that the policy sees through
policy.yaml                    policy class and sizes, and what it was trained for
policy.safetensors             weights and normalisation statistics
policy.onnx                    the same as one graph, where 'export_policy' was run (export_onnx.py)
robot.yaml                     the robot description that it was trained with, with the cameras that it sees through
report/                        pictures and metrics.json, for people
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from atk_perception.keypoint_set import KEYPOINTS_FILE, KeypointSet, KeypointSetError
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
CAMERAS_FOLDER = "cameras"


class RunFolderError(ValueError):
    """A run folder that cannot be used: which file, what it holds, what to do."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SeenSet(_Model):
    """What a policy takes of one camera.

    Attributes:
        camera: its name in the robot description.
        keypoint_set: name of the set that is tracked in its images, as in every KeypointArray.
        keypoint_ids: of that set, in order.
        image_width, image_height: of the set's template [px].
    """

    camera: str
    keypoint_set: str
    keypoint_ids: list[int] = Field(min_length=1)
    image_width: int = Field(gt=0)
    image_height: int = Field(gt=0)

    @classmethod
    def of(cls, keypoint_set: KeypointSet) -> SeenSet:
        """What a policy takes that is trained on this set."""
        return cls(
            camera=keypoint_set.camera_name,
            keypoint_set=keypoint_set.name,
            keypoint_ids=keypoint_set.ids.tolist(),
            image_width=keypoint_set.image_width,
            image_height=keypoint_set.image_height,
        )


class PolicyFile(_Model):
    """Schema of policy.yaml, format version 1.

    Attributes:
        policy: name in atk_policy.policies; encoder: in atk_policy.policies.encoders; sizes: arguments of the class
            beyond those below.
        keypoint_set, keypoint_ids, camera, image_width, image_height: see SeenSet, of the first camera.
        more_cameras: the same of further cameras. The policy takes the keypoints of all in this order.
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
    more_cameras: list[SeenSet] = []
    matcher: str
    tracker: str
    trained: dict[str, Any] = {}

    @model_validator(mode="after")
    def _reaches(self) -> PolicyFile:
        check_execution_horizon(self.execution_horizon, self.horizon)
        return self

    @model_serializer(mode="wrap")
    def _serialise(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without an empty `more_cameras`: a policy with one camera is written as before there were more."""
        content: dict[str, Any] = serialise(self)
        if not self.more_cameras:
            content.pop("more_cameras", None)
        return content

    @property
    def seen(self) -> tuple[SeenSet, ...]:
        """What it takes of each camera, in order."""
        first = SeenSet(**{name: getattr(self, name) for name in SeenSet.model_fields})
        return (first, *self.more_cameras)


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
    """A keypoint set per camera, the policy that takes them, and the robot that they were made for."""

    path: Path
    keypoint_set: KeypointSet
    policy: Policy
    file: PolicyFile
    robot: RobotDescription
    more_keypoint_sets: tuple[KeypointSet, ...] = ()

    @property
    def keypoint_sets(self) -> dict[str, KeypointSet]:
        """By camera, in the order in which the policy takes them."""
        return {points.camera_name: points for points in (self.keypoint_set, *self.more_keypoint_sets)}

    @property
    def keypoint_ids(self) -> NDArray[np.int64]:
        """(N,) of all cameras, in the order in which the policy takes them."""
        return np.concatenate([points.ids for points in self.keypoint_sets.values()])

    def save(self) -> None:
        """Write everything but the report into `path`."""
        self.path.mkdir(parents=True, exist_ok=True)
        # A tracker must not find the set of an earlier selection there.
        shutil.rmtree(self.path / CAMERAS_FOLDER, ignore_errors=True)
        for camera, points in self.keypoint_sets.items():
            points.save(self.path / keypoint_folder(self.file, camera))
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
            robot = RobotDescription.load(path / ROBOT_FILE).seen_by(*(seen.camera for seen in file.seen))
            first, *more = (_load_keypoint_set(path, file, seen) for seen in file.seen)
        except (KeypointSetError, RobotDescriptionError) as error:
            raise RunFolderError(f"run folder {path}: {error}") from error
        unknown = {folder.name for folder in (path / CAMERAS_FOLDER).glob("*")} - {
            s.camera for s in file.seen[1:]
        }
        if unknown:
            raise RunFolderError(
                f"run folder {path}: {CAMERAS_FOLDER}/ holds sets of {sorted(unknown)}, which the policy does not see "
                f"through; it takes {[seen.camera for seen in file.seen]}. Copy the whole run folder again"
            )
        # By its name everybody knows whose camera's keypoints a message holds.
        names = [seen.keypoint_set for seen in file.seen]
        if len(set(names)) != len(names):
            raise RunFolderError(
                f"run folder {path}: the keypoint sets of several cameras have one name: {names}; give each its own"
            )
        return cls(path, first, _load_policy(path / WEIGHTS_FILE, file), file, robot, tuple(more))

    def require_robot(self, robot: RobotDescription) -> RobotDescription:
        """Refuse a robot on which the policy's commands would mean something else.

        Returns:
            `robot` with the cameras that the policy sees through, in its order.

        Raises:
            RunFolderError: naming every entry that differs, and its line in both files.
        """
        differences = self.robot.differences(robot)
        cameras = {camera.name: camera for camera in robot.cameras}
        for here in self.file.seen:
            there = cameras.get(here.camera)
            # Another size of the same aspect ratio is rescaled by the tracker.
            if there and here.image_width * there.height != here.image_height * there.width:
                differences.append(
                    f"camera size of {here.camera}: {here.image_width}x{here.image_height} here, "
                    f"{there.width}x{there.height} there{robot.where_camera(here.camera, 'width')}"
                )
        if differences:
            raise RunFolderError(
                f"run folder {self.path} was made for robot '{self.robot.name}' and cannot drive '{robot.name}' "
                f"(here: {self.path / ROBOT_FILE}, there: {robot.origin.name or 'the robot description'}): "
                f"{'; '.join(differences)}. Correct the robot description, or select with demonstrations of this robot"
            )
        return robot.seen_by(*self.keypoint_sets)


def keypoint_folder(file: PolicyFile, camera: str) -> Path:
    """Where a camera's keypoint set lies in a run folder: the first one's at the top."""
    return Path() if camera == file.camera else Path(CAMERAS_FOLDER) / camera


def _load_keypoint_set(path: Path, file: PolicyFile, seen: SeenSet) -> KeypointSet:
    """Read and check the set of one camera.

    Raises:
        KeypointSetError: it is missing or damaged.
        RunFolderError: it is another one than the policy was trained on.
    """
    folder = path / keypoint_folder(file, seen.camera)
    points = KeypointSet.load(folder)
    found = SeenSet.of(points)
    if found != seen:
        raise RunFolderError(
            f"run folder {path}: {folder / KEYPOINTS_FILE} holds set '{found.keypoint_set}' of camera '{found.camera}' "
            f"({found.image_width}x{found.image_height}) with ids {found.keypoint_ids}, but the policy was trained on "
            f"'{seen.keypoint_set}' of '{seen.camera}' ({seen.image_width}x{seen.image_height}) with {seen.keypoint_ids}. "
            "Restore the file, or select again"
        )
    return points


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
            keypoints=sum(len(seen.keypoint_ids) for seen in file.seen),
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
