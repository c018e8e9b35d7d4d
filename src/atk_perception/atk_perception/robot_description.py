"""One YAML file per robot: what recording, selection and running must agree on.

The file is read once, here, and validated whole; every error names the entry, its line, what it holds and what it
should hold.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
import yaml
from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from atk_perception.camera_calibration import CameraCalibration, CameraCalibrationError
from atk_perception.viewpoint import Plane
from atk_perception.yaml_lines import Location, YamlLines

FORMAT_VERSION = 1
PACKAGE_SCHEME = "package://"

FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
# Of a further camera: it becomes a ROS namespace and a folder.
CAMERA_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

TopicName = Annotated[str, Field(pattern=r"^/?[A-Za-z_~][A-Za-z0-9_/~]*$")]


class RobotDescriptionError(ValueError):
    """A robot description file cannot be used; the message names the file, the entry and the fix."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def _problems(self) -> Iterator[tuple[Location, str]]:
        """What is wrong with valid entries beside each other: at which of them, and why."""
        yield from ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        errors = [
            InitErrorDetails(
                type=PydanticCustomError("inconsistent", "{problem}", {"problem": problem}),
                loc=tuple(location),
                input=self,
            )
            for location, problem in self._problems()
        ]
        if errors:
            raise ValidationError.from_exception_data(type(self).__name__, errors)
        return self


@dataclass(frozen=True, eq=False)
class Origin:
    """Where a description was read, for messages: no part of what it says, so that all are equal.

    Attributes:
        name: of the file, or of what else held the text; empty of one that was made by a program.
        lines: of its entries.
    """

    name: str = ""
    lines: YamlLines = field(default_factory=lambda: YamlLines(None, {}))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origin)

    def __hash__(self) -> int:
        return 0


class Joints(_Model):
    """Arm joints in command order, with their limits."""

    names: tuple[str, ...] = Field(min_length=1)
    position_min_rad: tuple[FiniteFloat, ...]
    position_max_rad: tuple[FiniteFloat, ...]
    velocity_max_rad_s: tuple[PositiveFloat, ...]
    acceleration_max_rad_s2: tuple[PositiveFloat, ...]
    jerk_max_rad_s3: tuple[PositiveFloat, ...]

    def _problems(self) -> Iterator[tuple[Location, str]]:
        for k, name in enumerate(self.names):
            if name in self.names[:k]:
                yield ("names", k), f"joint {name} is named twice"
        limits = ("position_min_rad", "position_max_rad", "velocity_max_rad_s", "acceleration_max_rad_s2")
        counts = {entry: len(getattr(self, entry)) for entry in (*limits, "jerk_max_rad_s3")}
        for entry, count in counts.items():
            if count != len(self.names):
                yield (entry,), f"{count} values for {len(self.names)} joints"
        for k, (low, high) in enumerate(zip(self.position_min_rad, self.position_max_rad, strict=False)):
            if low >= high:
                yield ("position_min_rad", k), f"{low} is not below position_max_rad {high}"


class Gripper(_Model):
    """How the gripper's opening [m] follows from its joint, and who is told to open or close it.

    opening = opening_at_zero_m + opening_per_joint_m * joint position; the second is negative where
    the joint grows as the gripper closes.

    Attributes:
        squeeze_m: of demonstrations without gripper commands (see Topics): how much further than was measured the gripper
            is taken to have been told to close, from when it closes until it opens. What it holds stops it before it is
            where it was told to be, and is held by that difference alone.
    """

    joint: str
    opening_per_joint_m: FiniteFloat
    opening_at_zero_m: FiniteFloat = 0.0
    min_m: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
    max_m: PositiveFloat
    squeeze_m: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.01
    sink: Literal["position", "gripper_command", "parallel_gripper_command"] = "position"
    action: TopicName | None = None
    max_effort: PositiveFloat | None = None

    def _problems(self) -> Iterator[tuple[Location, str]]:
        if self.min_m >= self.max_m:
            yield ("min_m",), f"{self.min_m} is not below max_m {self.max_m}"
        if self.opening_per_joint_m == 0.0:
            yield ("opening_per_joint_m",), "is 0; the opening must follow from the joint"
        if self.sink != "position" and self.action is None:
            yield ("sink",), f"{self.sink} needs 'action', the name of the gripper's action server"

    @model_serializer(mode="wrap")
    def _serialise(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the usual `squeeze_m`: a gripper is written, and known again, as before there was one."""
        content: dict[str, Any] = serialise(self)
        if self.squeeze_m == type(self).model_fields["squeeze_m"].default:
            content.pop("squeeze_m", None)
        return content

    def opening_m(self, joint_position: float) -> float:
        """Opening [m] of a position of the gripper's joint."""
        return self.opening_at_zero_m + self.opening_per_joint_m * joint_position

    def joint_position(self, opening_m: float) -> float:
        """Position of the gripper's joint for an opening [m]."""
        return (opening_m - self.opening_at_zero_m) / self.opening_per_joint_m


class Camera(_Model):
    """A camera that keypoints are seen with; the name of a further one is a namespace in the graph.

    Attributes:
        noiseless: a simulated camera whose pictures of a scene at rest are the same to the bit; that two are is then
            no sign that it hangs.
        depth_topic: depth images registered to the image, where the camera has them.
        calibration: where it stands, for reprojection (viewpoint.py). In the file it may be the path of what
            `calibrate_camera` wrote; copies, as in bags and run folders, hold its entries.
    """

    name: str
    frame_id: str
    image_topic: TopicName
    camera_info_topic: TopicName
    recorded_topic: TopicName
    width: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]
    rate_hz: PositiveFloat
    noiseless: bool = False
    depth_topic: TopicName | None = None
    calibration: CameraCalibration | None = None

    @model_serializer(mode="wrap")
    def _serialise(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is not there: a description is written, and known again, as before it could be."""
        content: dict[str, Any] = serialise(self)
        if not self.noiseless:
            content.pop("noiseless", None)
        return {key: value for key, value in content.items() if value is not None}

    @property
    def pose_topic(self) -> str:
        """Where the pose of its optical frame is told (geometry_msgs/PoseStamped): beside camera_info."""
        return _beside(self.camera_info_topic, "pose")

    @property
    def registered_depth_topic(self) -> str:
        """`depth_topic`, or else where it would be: beside the images."""
        return self.depth_topic or _beside(self.image_topic, "depth/image_raw")

    @property
    def is_rectified(self) -> bool:
        """Whether its images are rectified, by the names that image_proc gives them."""
        return self.image_topic.rpartition("/")[2].startswith("image_rect")


class WorkPlane(_Model):
    """What the task's points lie in or near, as a table top: a point of it [m] and its normal, in the base frame."""

    point_m: tuple[FiniteFloat, FiniteFloat, FiniteFloat] = (0.0, 0.0, 0.0)
    normal: tuple[FiniteFloat, FiniteFloat, FiniteFloat] = (0.0, 0.0, 1.0)

    def _problems(self) -> Iterator[tuple[Location, str]]:
        if math.hypot(*self.normal) < 1e-6:
            yield ("normal",), "is 0; give a direction, as [0, 0, 1] for a table"

    @property
    def plane(self) -> Plane:
        """The same for computing with."""
        return Plane(np.array(self.point_m), np.array(self.normal))


class Topics(_Model):
    """Where the robot listens and speaks.

    Attributes:
        joint_states: of arm and gripper.
        command: where the command sink publishes, if it does.
        recorded_command: the arm's positions or trajectories in demonstrations, where `command` does not say them, as with
            MoveIt Servo: what Servo tells the controller.
        gripper_command: the gripper's opening [m]. Where nobody publishes it, demonstrations take for the command of a
            period the opening that was measured at its end (and see Gripper.squeeze_m).
    """

    joint_states: TopicName
    command: TopicName
    recorded_command: TopicName | None = None
    gripper_command: TopicName | None = None

    @model_serializer(mode="wrap")
    def _serialise(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is not there: topics are written, and known again, as before there could be fewer or more."""
        content: dict[str, Any] = serialise(self)
        return {key: value for key, value in content.items() if value is not None}

    @property
    def recorded_arm_command(self) -> str:
        """Where demonstrations have the arm's commands."""
        return self.recorded_command or self.command

    @property
    def commands(self) -> tuple[str, ...]:
        """Every topic by which somebody moves the robot."""
        named = (self.command, self.recorded_command, self.gripper_command)
        return tuple(topic for topic in named if topic is not None)


class Deadlines(_Model):
    """How old [s] an input may be before the robot is held."""

    image: PositiveFloat
    keypoints: PositiveFloat
    joint_states: PositiveFloat


class Kinematics(_Model):
    """A model of the arm, for what joint limits cannot say: where the tip may be, and self-collision.

    Attributes:
        model: MJCF or URDF; a path relative to the robot description, or package://PACKAGE/PATH.
        tip: body or site that the workspace box is about.
        workspace_min_m, workspace_max_m: the box that the tip stays in, in the model's base frame.
        moveit_group: planning group of the moveit node; empty where there is no MoveIt.
        base_frame: TF frame of the model's base, which servo_twist gives its twists in; else it may be empty.
    """

    model: str
    tip: str
    workspace_min_m: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    workspace_max_m: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    moveit_group: str = ""
    base_frame: str = ""

    def _problems(self) -> Iterator[tuple[Location, str]]:
        for k, (low, high) in enumerate(zip(self.workspace_min_m, self.workspace_max_m, strict=True)):
            if low >= high:
                yield ("workspace_min_m", k), f"along {'xyz'[k]}, {low} is not below workspace_max_m {high}"

    def model_file(self) -> Path:
        """Where the model lies on this machine.

        Raises:
            RobotDescriptionError: no such file or package; or a relative path, of a description that was
                parsed from text: only `RobotDescription.load` knows the folder that it is relative to.
        """
        if self.model.startswith(PACKAGE_SCHEME):
            package, _, inside = self.model.removeprefix(PACKAGE_SCHEME).partition("/")
            try:
                path = Path(get_package_share_directory(package)) / inside
            except (PackageNotFoundError, ValueError) as error:
                raise RobotDescriptionError(
                    f"kinematics.model {self.model}: package '{package}' is not installed; build and source its workspace"
                ) from error
        else:
            path = Path(self.model)
            if not path.is_absolute():
                raise RobotDescriptionError(
                    f"kinematics.model {self.model} is relative to a file that is not known; use RobotDescription.load"
                )
        if not path.is_file():
            raise RobotDescriptionError(
                f"kinematics.model {self.model}: there is no file {path}. In a robot description that is copied between "
                "machines, as run folders are, name the model as package://PACKAGE/PATH"
            )
        return path


class RobotDescription(_Model):
    """A manipulator with its cameras, as this stack sees it. J is the number of arm joints.

    The frames of `camera` set the clock of control; what `more_cameras` see is joined to them (see camera_join).
    """

    format_version: Literal[1]
    name: str
    control_rate_hz: PositiveFloat
    joints: Joints
    gripper: Gripper
    home_rad: tuple[FiniteFloat, ...]
    camera: Camera
    more_cameras: tuple[Camera, ...] = ()
    work_plane: WorkPlane | None = None
    topics: Topics
    command_sink: Literal[
        "forward_position", "joint_trajectory", "follow_joint_trajectory", "servo_joint", "servo_twist"
    ]
    command_action: TopicName | None = None
    scene_check: Literal["none", "model", "moveit"] = "none"
    kinematics: Kinematics | None = None
    deadlines_s: Deadlines
    _origin: Origin = PrivateAttr(default_factory=Origin)

    def _problems(self) -> Iterator[tuple[Location, str]]:
        joints = self.joints
        if len(self.home_rad) != len(joints.names):
            yield ("home_rad",), f"{len(self.home_rad)} values for {len(joints.names)} joints"
        ranges = zip(
            joints.names, joints.position_min_rad, self.home_rad, joints.position_max_rad, strict=False
        )
        for k, (name, low, home, high) in enumerate(ranges):
            if not low <= home <= high:
                yield ("home_rad", k), f"{home} is outside the limits of {name}, {low} to {high}"
        yield from self._sink_problems()
        for place, camera in self._places.items():
            if self.control_rate_hz > camera.rate_hz + 1e-9:
                yield (
                    ("control_rate_hz",),
                    f"{self.control_rate_hz} is above {'.'.join(map(str, place))}.rate_hz {camera.rate_hz}: every control "
                    "frame needs an image of its own",
                )
        yield from self._camera_problems()

    def _sink_problems(self) -> Iterator[tuple[Location, str]]:
        if self.gripper.sink == "position" and self.topics.gripper_command is None:
            yield (
                ("topics",),
                "gripper.sink position needs topics.gripper_command, where the gripper listens for its opening [m]",
            )
        if self.command_sink == "follow_joint_trajectory" and self.command_action is None:
            yield ("command_sink",), "follow_joint_trajectory needs 'command_action', the action's name"
        model = self.kinematics
        for entry, needs_it in (
            ("scene_check", self.scene_check != "none"),
            ("command_sink", self.command_sink == "servo_twist"),
        ):
            if needs_it and model is None:
                yield (
                    (entry,),
                    f"{getattr(self, entry)} needs the entry 'kinematics': the model, its tip and the workspace",
                )
        if self.command_sink == "servo_twist" and model and not model.base_frame:
            yield (
                ("command_sink",),
                "servo_twist needs kinematics.base_frame, the TF frame of the arm's base, such as panda_link0",
            )
        if self.scene_check == "moveit" and model and not model.moveit_group:
            yield ("scene_check",), "moveit needs kinematics.moveit_group"

    def _camera_problems(self) -> Iterator[tuple[Location, str]]:
        """Cameras that cannot be told apart."""
        for number, camera in enumerate(self.more_cameras):
            problems = {
                entry: f"{value} is that of camera '{other.name}' too; each camera needs its own"
                for other in self.cameras[: number + 1]
                for entry in ("name", "image_topic", "camera_info_topic", "recorded_topic")
                if (value := getattr(camera, entry).lstrip("/")) == getattr(other, entry).lstrip("/")
            }
            if not CAMERA_NAME.fullmatch(camera.name):
                problems["name"] = (
                    f"'{camera.name}' is no name for a namespace and a folder; give letters, digits and underscores"
                )
            for entry, problem in problems.items():
                yield ("more_cameras", number, entry), problem

    @model_serializer(mode="wrap")
    def _serialise(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without an empty `more_cameras` or `work_plane`: such a robot is written, and known again, as before there were."""
        content: dict[str, Any] = serialise(self)
        if not self.more_cameras:
            content.pop("more_cameras", None)
        if self.work_plane is None:
            content.pop("work_plane", None)
        return content

    @property
    def origin(self) -> Origin:
        """Where it was read."""
        return self._origin

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """All cameras, the first one first."""
        return (self.camera, *self.more_cameras)

    @property
    def _places(self) -> dict[tuple[str | int, ...], Camera]:
        """Cameras by their entry."""
        places: dict[tuple[str | int, ...], Camera] = {("camera",): self.camera}
        return places | {("more_cameras", k): camera for k, camera in enumerate(self.more_cameras)}

    def seen_by(self, *names: str) -> Self:
        """The same robot with these of its cameras alone; the first of them sets the clock.

        Raises:
            RobotDescriptionError: it has no camera of such a name.
        """
        by_name = {camera.name: camera for camera in self.cameras}
        unknown = [name for name in names if name not in by_name]
        if unknown or not names:
            raise RobotDescriptionError(
                f"robot '{self.name}' has no camera {unknown}; it has {list(by_name)}"
            )
        first, *more = (by_name[name] for name in names)
        return self.model_copy(update={"camera": first, "more_cameras": tuple(more)})

    @property
    def joint_count(self) -> int:
        """J, the number of arm joints."""
        return len(self.joints.names)

    @property
    def action_size(self) -> int:
        """Length of an action: J joint positions [rad], then the gripper opening [m]."""
        return self.joint_count + 1

    @property
    def control_period_ns(self) -> int:
        """Time between two control frames [ns]."""
        return round(1e9 / self.control_rate_hz)

    @property
    def action_min(self) -> npt.NDArray[np.float64]:
        """(J + 1,) lower bounds of an action [rad, m]."""
        return np.array([*self.joints.position_min_rad, self.gripper.min_m])

    @property
    def action_max(self) -> npt.NDArray[np.float64]:
        """(J + 1,) upper bounds of an action [rad, m]."""
        return np.array([*self.joints.position_max_rad, self.gripper.max_m])

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read and validate a robot description.

        A relative `kinematics.model` becomes absolute; a `calibration` that is a path becomes what the file holds.

        Raises:
            RobotDescriptionError: the file is missing, is no YAML, has another format version, or
                an entry is missing, unknown or out of range, or the model or calibration beside it is missing.
        """
        path = Path(path)
        try:
            text = path.read_text()
        except OSError as error:
            raise RobotDescriptionError(
                f"robot description {path} cannot be read: {error.strerror}"
            ) from error
        robot = cls._parse(text, str(path), path.parent)
        kinematics = robot.kinematics
        if kinematics is None or kinematics.model.startswith(PACKAGE_SCHEME):
            return robot
        model = (path.parent / kinematics.model).absolute()
        # An absolute path may be that of the machine on which a run folder was made: it is looked for when it is needed.
        if not Path(kinematics.model).is_absolute() and not model.is_file():
            line = robot.origin.lines.where(("kinematics", "model"))
            raise RobotDescriptionError(
                f"robot description {path} cannot be used:\n  kinematics.model: there is no file {model}{line}"
            )
        return robot.model_copy(update={"kinematics": kinematics.model_copy(update={"model": str(model)})})

    @classmethod
    def parse(cls, text: str, source: str) -> Self:
        """Validate the text of a robot description; `source` names it in errors."""
        return cls._parse(text, source, None)

    @classmethod
    def _parse(cls, text: str, source: str, folder: Path | None) -> Self:
        try:
            lines = YamlLines.parse(text)
        except yaml.YAMLError as error:
            raise RobotDescriptionError(f"robot description {source} is not valid YAML: {error}") from error
        content = lines.content
        if not isinstance(content, dict):
            raise RobotDescriptionError(
                f"robot description {source} holds no entries{lines.where(())}; copy one of config/robots/"
            )
        version = content.get("format_version")
        if version != FORMAT_VERSION:
            raise RobotDescriptionError(
                f"robot description {source} has format_version {version!r}{lines.where(('format_version',))}; this version of "
                f"ATK reads {FORMAT_VERSION}. Use the ATK release it was written for, or rewrite it after config/robots/."
            )
        _resolve_calibrations(lines, source, folder)
        try:
            robot = cls.model_validate(content)
        except ValidationError as error:
            problems = [
                f"  {'.'.join(map(str, item['loc']))}: {item['msg']}{lines.where(item['loc'])}"
                for item in error.errors()
            ]
            raise RobotDescriptionError(
                "\n".join([f"robot description {source} cannot be used:", *problems])
            ) from error
        robot._origin = Origin(source, lines)
        return robot

    def dump(self) -> str:
        """The description as YAML, as `parse` reads it."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, default_flow_style=None)

    def fingerprint(self) -> str:
        """What a recorded bag or a track cache was made for.

        Changes whenever an entry does, but where the model lies and where cameras stand: nobody tracks by that.
        """
        entries = self.model_dump(mode="json", exclude={"kinematics": {"model"}, "work_plane": True})
        for camera in (entries["camera"], *entries.get("more_cameras", ())):
            for entry in ("calibration", "depth_topic"):
                camera.pop(entry, None)
        return hashlib.sha256(yaml.safe_dump(entries).encode()).hexdigest()[:16]

    def differences(self, other: RobotDescription) -> list[str]:
        """Entries that differ from `other` in what a trained policy depends on, one each, with their lines.

        Topic names and deadlines are deployment and may differ; limits may differ, since the
        safety layer applies those of the robot at hand. Cameras that `other` has beyond ours are not looked through.
        """
        found = []
        for entry, mine, theirs in (
            ("control_rate_hz", self.control_rate_hz, other.control_rate_hz),
            ("joints.names", self.joints.names, other.joints.names),
            ("gripper.joint", self.gripper.joint, other.gripper.joint),
            (
                "gripper.opening_per_joint_m",
                self.gripper.opening_per_joint_m,
                other.gripper.opening_per_joint_m,
            ),
            ("gripper.opening_at_zero_m", self.gripper.opening_at_zero_m, other.gripper.opening_at_zero_m),
            ("gripper.max_m", self.gripper.max_m, other.gripper.max_m),
        ):
            same = (
                math.isclose(mine, theirs)
                if isinstance(mine, float) and isinstance(theirs, float)
                else mine == theirs
            )
            if not same:
                here, there = (robot.origin.lines.where(entry.split(".")) for robot in (self, other))
                found.append(f"{entry}: {mine} here{here}, {theirs} there{there}")
        names = [camera.name for camera in other.cameras]
        there = other.origin.lines.where(("camera", "name"))
        found += [
            f"camera.name: {camera.name} here{self.where_camera(camera.name)}, {' and '.join(names)} there{there}"
            for camera in self.cameras
            if camera.name not in names
        ]
        return found

    def where_camera(self, name: str, entry: str = "name") -> str:
        """' (line N)' of an entry of one of its cameras, in the file; `seen_by` may have put them in another order."""
        lines = self.origin.lines
        content = lines.content or {}
        written: list[tuple[tuple[str | int, ...], Any]] = [(("camera",), content.get("camera", {}))]
        written += [(("more_cameras", k), camera) for k, camera in enumerate(content.get("more_cameras", ()))]
        places = [place for place, camera in written if camera.get("name") == name]
        return lines.where((*places[0], entry)) if places else ""


def _beside(topic: str, name: str) -> str:
    folder, slash, _ = topic.rpartition("/")
    return f"{folder}{slash}{name}"


def _resolve_calibrations(lines: YamlLines, source: str, folder: Path | None) -> None:
    """Put what calibration files hold in the place of their paths.

    Raises:
        RobotDescriptionError: a file is missing or wrong; or the description is not a file itself, and names a path.
    """
    entries: list[tuple[tuple[int | str, ...], Any]] = [(("camera",), lines.content.get("camera"))]
    more = lines.content.get("more_cameras")
    entries += [
        (("more_cameras", k), camera) for k, camera in enumerate(more if isinstance(more, list) else ())
    ]
    for location, camera in entries:
        named = camera.get("calibration") if isinstance(camera, dict) else None
        if not isinstance(named, str):
            continue
        where = f"  {'.'.join(map(str, location))}.calibration"
        line = lines.where((*location, "calibration"))
        if folder is None:
            raise RobotDescriptionError(
                f"robot description {source} cannot be used:\n{where}: {named} is relative to a file that is not known; use "
                f"RobotDescription.load{line}"
            )
        try:
            camera["calibration"] = CameraCalibration.load(folder / Path(named).expanduser()).model_dump(
                mode="json"
            )
        except CameraCalibrationError as error:
            raise RobotDescriptionError(
                f"robot description {source} cannot be used:\n{where}: {error}{line}"
            ) from error
