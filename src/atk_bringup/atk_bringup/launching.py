"""What the launch files of this package share: their common arguments, and how a node is started.

A launch file lists its own arguments and its nodes, in the order in which they are brought up; `bringup` adds the rest in
one way for all: namespace, parameter file, ROS clock, Fast DDS profile, lifecycle. Nothing here decides anything else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription, Substitution
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.conditions import IfCondition
from launch.events import Shutdown as ShutdownEvent
from launch.logging import get_logger
from launch.substitutions import (
    AndSubstitution,
    EnvironmentVariable,
    EqualsSubstitution,
    LaunchConfiguration,
    OrSubstitution,
)
from launch.utilities import normalize_to_list_of_substitutions, perform_substitutions
from launch_ros.actions import Node, PushRosNamespace, SetParameter
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.ros_adapters import get_ros_node
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState

from atk_perception.service_answers import answers_reach

BOOLEAN = ("true", "false")
# As atk_perception has them: `ros2 launch` may run in a Python that lacks what that package needs.
VIEWPOINTS = ("none", "plane", "depth")
POSE_SOURCES = ("calibration", "topic", "tf")
HOMING_SINKS = ("forward_position", "joint_trajectory")
PROFILE_VARIABLE, IMAGES_PROFILE = "FASTRTPS_DEFAULT_PROFILES_FILE", "fastdds_images.xml"
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
# With a namespace, TF is that robot's own (as in Nav2).
TF_REMAPPINGS = [("/tf", "tf"), ("/tf_static", "tf_static")]
# Each simulated robot has a time of its own, so /clock follows the namespace too.
OWN_CLOCK = [("/clock", "clock")]
# REP 103: an optical frame (z forward, x right) in a frame with z up.
OPTICAL_QUATERNION_XYZW = ("-0.5", "0.5", "-0.5", "0.5")
# What brings a node up, and what it then is.
TRANSITIONS = (
    (Transition.TRANSITION_CONFIGURE, "configured"),
    (Transition.TRANSITION_ACTIVATE, "activated"),
)
# Between two looks for an answer.
LOOK_S = 0.05


def share() -> Path:
    """Where the launch files, parameters, robot descriptions and RViz configuration are installed."""
    return Path(get_package_share_directory("atk_bringup"))


def shipped_robots() -> list[str]:
    """Names of the robot descriptions in config/robots/."""
    return sorted(path.stem for path in (share() / "config" / "robots").glob("*.yaml"))


class RobotFile(Substitution):
    """Path of the robot description that the argument `robot` names.

    A name is that of a shipped description, anything else a path; empty is the copy in `run_folder`,
    or empty where there is no run folder either.
    """

    def __init__(self, robot: Any, run_folder: Any = "") -> None:
        super().__init__()
        self._robot = normalize_to_list_of_substitutions(robot)
        self._run_folder = normalize_to_list_of_substitutions(run_folder)

    def describe(self) -> str:
        """For `ros2 launch --debug`."""
        return "RobotFile()"

    def perform(self, context: LaunchContext) -> str:
        """The absolute path.

        Raises:
            FileNotFoundError: neither a shipped name nor a file.
        """
        given = perform_substitutions(context, self._robot)
        run_folder = perform_substitutions(context, self._run_folder)
        if not given and not run_folder:
            return ""
        if given in shipped_robots():
            return str(share() / "config" / "robots" / f"{given}.yaml")
        path = Path(given).expanduser() if given else Path(run_folder).expanduser() / "robot.yaml"
        if not path.is_file():
            raise FileNotFoundError(
                f"no robot description at {path.resolve()}; expected a YAML file or one of the shipped names: "
                f"{', '.join(shipped_robots())}"
            )
        return str(path.resolve())


class RobotEntry(Substitution):
    """An entry of the robot description, as 'camera.frame_id'; `default` where it may be left out.

    Read as plain YAML: `ros2 launch` runs in the system's Python, which may lack the libraries that
    validate the file. The nodes validate it.
    """

    def __init__(self, robot_file: RobotFile, entry: str, default: str | None = None) -> None:
        super().__init__()
        self._robot_file = robot_file
        self._entry = entry
        self._default = default

    def describe(self) -> str:
        """For `ros2 launch --debug`."""
        return f"RobotEntry({self._entry})"

    def perform(self, context: LaunchContext) -> str:
        """The entry as text.

        Raises:
            KeyError: the file has no such entry, and there is no default.
        """
        path = self._robot_file.perform(context)
        value = yaml.safe_load(Path(path).read_text())
        for name in self._entry.split("."):
            if isinstance(value, list):
                value = {str(number): item for number, item in enumerate(value)}
            if not isinstance(value, dict) or name not in value:
                if self._default is not None:
                    return self._default
                raise KeyError(f"{path} is not a robot description: it has no entry '{self._entry}'")
            value = value[name]
        return str(value)


class InNamespace(Substitution):
    """A relative topic as the graph will know it, for parameters that are named after a topic."""

    def __init__(self, topic: Any) -> None:
        super().__init__()
        self._topic = normalize_to_list_of_substitutions(topic)

    def describe(self) -> str:
        """For `ros2 launch --debug`."""
        return "InNamespace()"

    def perform(self, context: LaunchContext) -> str:
        """The fully qualified name."""
        topic = str(perform_substitutions(context, self._topic))
        # The namespace that the surrounding groups have pushed, this launch file's own among them.
        namespace = (context.launch_configurations.get("ros_namespace") or "").strip("/")
        return topic if topic.startswith("/") else "/".join(["", *filter(None, [namespace, topic])])


def argument(
    name: str, description: str, default: Any = None, choices: Sequence[str] | None = None
) -> DeclareLaunchArgument:
    """A launch argument; without a default it must be given."""
    return DeclareLaunchArgument(
        name,
        default_value=default,
        description=description,
        choices=list(choices) if choices is not None else None,
    )


def text(value: Any) -> ParameterValue:
    """A string parameter, also when what is given looks like a number or a boolean."""
    return ParameterValue(value, value_type=str)


def number(value: Any) -> ParameterValue:
    """A floating-point parameter, also when what is given is written as a whole number."""
    return ParameterValue(value, value_type=float)


def boolean(value: Any) -> ParameterValue:
    """A boolean parameter."""
    return ParameterValue(value, value_type=bool)


class ManagedNode(Node):
    """A managed node that is brought up after those that were started before it."""

    def execute(self, context: LaunchContext) -> list[Any] | None:
        """Start the process, and take its place in the order."""
        actions: list[Any] | None = super().execute(context)
        context.locals.managed_nodes.append(self.node_name)
        return actions


def managed_node(
    package: str,
    executable: str,
    name: str,
    parameters: Mapping[Any, Any],
    remappings: Sequence[tuple[Any, Any]] = (),
    condition: Any = None,
    namespace: Any = None,
    *,
    looks_on: bool = False,
) -> Node:
    """One of our nodes. When it ends, launch ends the others: half a graph would only look alive.

    One that only looks on comes up by itself, and may end.
    """
    autostart = boolean(LaunchConfiguration("autostart")) if looks_on else False
    return (Node if looks_on else ManagedNode)(
        package=package,
        executable=executable,
        name=name,
        namespace=namespace,
        output="screen",
        # The file first, so that what is deployed overrides what is tuned.
        parameters=[LaunchConfiguration("params_file"), {"autostart": autostart, **parameters}],
        remappings=list(remappings),
        ros_arguments=["--log-level", LaunchConfiguration("log_level")],
        condition=condition,
        on_exit=None if looks_on else partial(_end_all, f"{name} ended"),
    )


def _end_all(reason: str, _: Any, context: LaunchContext) -> Shutdown | None:
    """A required node has ended. Once is enough: launch_ros cannot be told twice."""
    return None if context.is_shutdown else Shutdown(reason=reason)


def bring_up(context: LaunchContext) -> None:
    """Configure the managed nodes in their order, then activate them in it; end all when one refuses.

    By the answers of their services: launch_ros has events for transitions too, but misses those that happen before it
    hears a new node.
    """
    names: tuple[str, ...] = tuple(context.locals.managed_nodes)
    ros = get_ros_node(context)

    def work() -> None:
        try:
            refusal = _refusal(context, ros, names)
        except Exception as error:
            refusal = f"the nodes cannot be brought up: {error!r}"
        if refusal and not context.is_shutdown:
            get_logger("bringup").error(refusal)
            event = ShutdownEvent(reason=refusal)
            context.asyncio_loop.call_soon_threadsafe(context.emit_event_sync, event)

    # Waiting here would keep launch from hearing of a process that ends.
    context.add_completion_future(context.asyncio_loop.run_in_executor(None, work))


def _refusal(context: LaunchContext, ros: Any, names: Sequence[str]) -> str:
    """Bring the nodes up; '' or what one of them refused."""
    clients = {name: ros.create_client(ChangeState, f"{name}/change_state") for name in names}

    def comes(ready: Callable[[], bool]) -> bool:
        """Wait for it; False when launch ends before."""
        while not ready():
            if context.is_shutdown:
                return False
            time.sleep(LOOK_S)
        return True

    for transition, what in TRANSITIONS:
        for name, client in clients.items():
            if not (comes(client.service_is_ready) and comes(answers_reach(ros, name))):
                return ""
            answer = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
            if not comes(answer.done):
                return ""
            if not answer.result().success:
                return f"{name} cannot be {what}; its log says why"
            get_logger("bringup").info(f"{name} is {what}")
    for client in clients.values():
        ros.destroy_client(client)
    return ""


def moves_home(robot_file: RobotFile) -> OrSubstitution:
    """Whether the moveit node is of use: it checks plans, or can bring the arm home with the model of the robot description."""
    scene = RobotEntry(robot_file, "scene_check", default="none")
    sink = RobotEntry(robot_file, "command_sink")
    first, second = (EqualsSubstitution(sink, name) for name in HOMING_SINKS)
    by_model = AndSubstitution(EqualsSubstitution(scene, "model"), OrSubstitution(first, second))
    return OrSubstitution(EqualsSubstitution(scene, "moveit"), by_model)


def camera_topics(robot_file: RobotFile, entry: str = "camera") -> list[tuple[str, InNamespace]]:
    """Remappings from the names our nodes use to those of a camera in the robot description.

    Whole names: those of a further camera's node would otherwise be taken to be inside its own namespace.
    """
    return [
        (ours, InNamespace(RobotEntry(robot_file, f"{entry}.{topic}")))
        for ours, topic in (
            ("camera/image_raw", "image_topic"),
            ("camera/image_raw/compressed", "recorded_topic"),
            ("camera/camera_info", "camera_info_topic"),
        )
    ]


def camera_part(context: LaunchContext, argument_name: str, number: int) -> str:
    """What a launch argument says for one of several cameras: its parts are separated by commas.

    Raises:
        ValueError: there are fewer parts than cameras.
    """
    given = context.launch_configurations[argument_name]
    parts = given.split(",") if given else [""] * (number + 1)
    if number >= len(parts):
        raise ValueError(
            f"{argument_name}:={given} names {len(parts)} for camera number {number + 1}; give one for each camera of the "
            "robot description, separated by commas"
        )
    return str(parts[number].strip())


def cameras(robot_file: RobotFile) -> OpaqueFunction:
    """A camera node for every camera, each on the topics of the robot description."""

    def camera(context: LaunchContext, entry: str, before: int) -> Node:
        return managed_node(
            "atk_perception",
            "camera_node",
            "camera",
            {
                "source": text(camera_part(context, "camera_source", before)),
                "calibration": text(camera_part(context, "camera_calibration", before)),
                "frame_id": text(RobotEntry(robot_file, f"{entry}.frame_id")),
                "rate_hz": number(RobotEntry(robot_file, f"{entry}.rate_hz")),
                "width": RobotEntry(robot_file, f"{entry}.width"),
                "height": RobotEntry(robot_file, f"{entry}.height"),
            },
            camera_topics(robot_file, entry),
            namespace=RobotEntry(robot_file, f"{entry}.name") if before else None,
        )

    return per_camera(robot_file, camera)


def place_topics(context: LaunchContext, robot_file: RobotFile, entry: str) -> list[tuple[str, InNamespace]]:
    """Remappings for what tells where a camera and what it sees are, as `robot_description.Camera` names its topics."""

    def beside(topic: str, name: str) -> str:
        folder, slash, _ = RobotEntry(robot_file, f"{entry}.{topic}").perform(context).rpartition("/")
        return f"{folder}{slash}{name}"

    depth = RobotEntry(robot_file, f"{entry}.depth_topic", default="").perform(context)
    return [
        ("camera/pose", InNamespace(beside("camera_info_topic", "pose"))),
        ("camera/depth/image_raw", InNamespace(depth or beside("image_topic", "depth/image_raw"))),
    ]


def tracker_arguments(
    image_reliability: str, compressed: str, pose_from: str = POSE_SOURCES[0]
) -> list[DeclareLaunchArgument]:
    """Arguments of `tracker`, with this launch file's defaults."""
    return [
        argument(
            "image_reliability",
            "delivery that the tracker asks for; reliable loses nothing, but hears no best-effort camera",
            image_reliability,
            ["best_effort", "reliable"],
        ),
        argument("compressed", "track the recorded (compressed) image topic", compressed, BOOLEAN),
        argument(
            "viewpoint",
            "where cameras moved since the demonstrations: reproject keypoints by work_plane of the robot description, or by depth",
            "none",
            VIEWPOINTS,
        ),
        argument(
            "pose_from",
            "with viewpoint, who says where cameras stand: the robot description, camera/pose, or TF",
            pose_from,
            POSE_SOURCES,
        ),
    ]


def trackers(robot_file: RobotFile, remappings: Sequence[tuple[Any, Any]] = ()) -> OpaqueFunction:
    """A tracker for every camera that the policy sees through, each on the topics of the robot description."""

    def tracker(context: LaunchContext, entry: str, before: int) -> Node:
        topics = camera_topics(robot_file, entry)
        places = place_topics(context, robot_file, entry)
        # rclpy names these parameters after the topic as it is once namespace and remappings are applied.
        reliability = {
            ("qos_overrides.", topic, ".subscription.reliability"): text(
                LaunchConfiguration("image_reliability")
            )
            for _, topic in topics[:2]
        }
        name = RobotEntry(robot_file, f"{entry}.name")
        return managed_node(
            "atk_perception",
            "tracker_node",
            "tracker",
            {
                # A further camera's keypoint set lies in a folder of its name.
                "run_folder": text(
                    [LaunchConfiguration("run_folder"), *(["/cameras/", name] if before else [])]
                ),
                "compressed": boolean(LaunchConfiguration("compressed")),
                "image_rate_hz": number(RobotEntry(robot_file, f"{entry}.rate_hz")),
                "robot": text(robot_file),
                "viewpoint": text(LaunchConfiguration("viewpoint")),
                "pose_from": text(LaunchConfiguration("pose_from")),
                **reliability,
            },
            [*topics, *places, *remappings],
            namespace=name if before else None,
        )

    return per_camera(robot_file, tracker, LaunchConfiguration("run_folder"))


def per_camera(
    robot_file: RobotFile, make: Callable[[LaunchContext, str, int], Node], run_folder: Any = ""
) -> OpaqueFunction:
    """A node for every camera of the robot, or of those that the policy in `run_folder` sees through.

    Args:
        make: called with the camera's entry in the robot description, as 'more_cameras.0', and how many came before it;
            those but the first belong into the namespace of their name.
    """

    def nodes(context: LaunchContext) -> list[Any]:
        robot = yaml.safe_load(Path(robot_file.perform(context)).read_text())
        entries = {robot["camera"]["name"]: "camera"}
        for place, camera in enumerate(robot.get("more_cameras", ())):
            entries[camera["name"]] = f"more_cameras.{place}"
        names = list(entries)
        folder = perform_substitutions(context, normalize_to_list_of_substitutions(run_folder))
        policy_file = Path(folder).expanduser() / "policy.yaml"
        if folder and policy_file.is_file():
            policy = yaml.safe_load(policy_file.read_text())
            # One that the robot lacks is refused by the policy node, with the cause.
            seen = [policy["camera"], *(camera["camera"] for camera in policy.get("more_cameras", ()))]
            names = [name for name in seen if name in entries] or names
        return [make(context, entries[name], before) for before, name in enumerate(names)]

    return OpaqueFunction(function=nodes)


def joint_monitor(robot_file: RobotFile, remappings: Sequence[tuple[Any, Any]] = ()) -> Node:
    """Commanded against measured joints, for RViz and plotting tools."""
    return managed_node(
        "atk_policy",
        "joint_monitor_node",
        "joint_monitor",
        {"robot": text(robot_file)},
        remappings,
        condition=IfCondition(LaunchConfiguration("joint_monitor")),
        looks_on=True,
    )


def joint_monitor_argument() -> DeclareLaunchArgument:
    """Argument of `joint_monitor`; after that of `rviz`."""
    return argument(
        "joint_monitor",
        "start the node that shows commanded against measured joints; as rviz unless given",
        LaunchConfiguration("rviz"),
        BOOLEAN,
    )


def rviz(robot_file: RobotFile, remappings: Sequence[tuple[Any, Any]] = ()) -> list[Node]:
    """RViz, and the camera's frame in TF where nobody else publishes it: without one RViz draws no marker."""
    frame = RobotEntry(robot_file, "camera.frame_id")
    wanted = LaunchConfiguration("rviz")
    rotation = [
        item
        for pair in zip(("--qx", "--qy", "--qz", "--qw"), OPTICAL_QUATERNION_XYZW, strict=True)
        for item in pair
    ]
    return [
        Node(
            package="rviz2",
            executable="rviz2",
            name="rviz",
            arguments=["-d", str(share() / "rviz" / "atk.rviz"), "-f", frame],
            # RViz saves absolute topic names; these make them follow the namespace and the robot description.
            remappings=[
                *(
                    (f"/{topic}", topic)
                    for topic in ("keypoints/overlay", "keypoints/markers", "policy/joints_image")
                ),
                *((f"/{topic}", name) for topic, name in camera_topics(robot_file)),
                *TF_REMAPPINGS,
                *remappings,
            ],
            condition=IfCondition(wanted),
        ),
        Node(
            package="tf2_ros",
            executable="static_transform_publisher",
            name="camera_frame",
            arguments=[*rotation, "--frame-id", "world", "--child-frame-id", frame],
            remappings=TF_REMAPPINGS,
            condition=IfCondition(AndSubstitution(wanted, LaunchConfiguration("camera_frame"))),
        ),
    ]


def rviz_arguments(camera_frame: str) -> list[DeclareLaunchArgument]:
    """Arguments of `rviz`."""
    return [
        argument("rviz", "start RViz with the overlay image, the markers and the joints", "false", BOOLEAN),
        argument(
            "camera_frame",
            "with RViz, publish the camera's optical frame in TF; false where a robot model or a calibration does",
            camera_frame,
            BOOLEAN,
        ),
    ]


def bringup(
    arguments: Sequence[DeclareLaunchArgument], nodes: Sequence[Any], use_sim_time: Any
) -> LaunchDescription:
    """The whole launch description.

    Args:
        arguments: those of this launch file alone.
        nodes: what it starts; managed ones are brought up in this order.
        use_sim_time: default of that argument.
    """
    profile = EnvironmentVariable(PROFILE_VARIABLE, default_value=str(share() / "config" / IMAGES_PROFILE))
    return LaunchDescription(
        [
            *arguments,
            argument("namespace", "prefix of every node, topic, service and action, for a second robot", ""),
            argument(
                "params_file",
                "tuning of the nodes (YAML)",
                str(share() / "config" / "atk.params.yaml"),
            ),
            argument(
                "autostart",
                "bring the nodes up, one after the other; false: they wait for a lifecycle manager, unconfigured",
                "true",
                BOOLEAN,
            ),
            argument("use_sim_time", "follow /clock instead of the wall clock", use_sim_time, BOOLEAN),
            argument("log_level", "how much the nodes say", "info", LOG_LEVELS),
            GroupAction(
                [
                    SetEnvironmentVariable(PROFILE_VARIABLE, profile),
                    PushRosNamespace(LaunchConfiguration("namespace")),
                    SetParameter("use_sim_time", boolean(LaunchConfiguration("use_sim_time"))),
                    # Its own for every launch file that is included.
                    OpaqueFunction(function=lambda context: context.extend_globals({"managed_nodes": []})),
                    *nodes,
                    OpaqueFunction(
                        function=bring_up, condition=IfCondition(LaunchConfiguration("autostart"))
                    ),
                ]
            ),
        ]
    )
