"""The launch files under the real launch and launch_ros. They come with ROS 2 from apt, not from PyPI."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

REASON = "launch and launch_ros are not installed (they come with ROS 2 from apt, not from PyPI)"
pytest.importorskip("launch", reason=REASON)
pytest.importorskip("launch_ros", reason=REASON)

import cv2
import numpy as np
from launch import LaunchContext
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launched_graph import LaunchedGraph
from lifecycle_msgs.msg import TransitionEvent
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger
from test_rviz_configuration import documented_topics

from atk_interfaces.msg import EpisodeStatus, KeypointArray, PolicyStatus
from atk_interfaces.srv import RecordEpisode, ResetEpisode
from atk_perception.frames import bag_robot, read_frames, stamp_ns_of
from atk_perception.image_codec import fill_png_message

PACKAGE = Path(__file__).parents[1]
LAUNCH = PACKAGE / "launch"
NAMES = ["record", "replay", "robot", "select", "sim"]
COMMON = {"namespace", "params_file", "autostart", "use_sim_time", "log_level"}


def arguments_of(name: str) -> dict:
    source = PythonLaunchDescriptionSource(str(LAUNCH / f"{name}.launch.py"))
    return {a.name: a for a in source.get_launch_description(LaunchContext()).get_launch_arguments()}


JOINTS = [f"panda_joint{k}" for k in range(1, 8)]
HOME_RAD = [0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785]
BAG_IMAGES = 12


@pytest.fixture(scope="module")
def bag(tmp_path_factory) -> Path:
    """A recording of a robot that stands still, of noise."""
    from rosbags.typesys import Stores, get_typestore

    from atk_perception.recording import DemonstrationWriter
    from atk_perception.robot_description import RobotDescription

    robot = RobotDescription.load(PACKAGE / "config" / "robots" / "sim_panda.yaml")
    types = get_typestore(Stores.ROS2_JAZZY)
    path = tmp_path_factory.mktemp("bags") / "standing"
    image, state, array = (
        "sensor_msgs/msg/CompressedImage",
        "sensor_msgs/msg/JointState",
        "std_msgs/msg/Float64MultiArray",
    )
    topics = robot.topics
    kinds = {
        robot.camera.recorded_topic: image,
        topics.joint_states: state,
        topics.command: array,
        topics.gripper_command: array,
    }
    writer = DemonstrationWriter(path, kinds, robot)
    picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    png = cv2.imencode(".png", picture)[1].ravel()
    layout = types.types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
    for k in range(BAG_IMAGES):
        ns = 10**9 + k * 50_000_000
        stamp = types.types["builtin_interfaces/msg/Time"](sec=ns // 10**9, nanosec=ns % 10**9)
        header = types.types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera")
        q = np.append(robot.home_rad, 0.02)
        names = [*robot.joints.names, robot.gripper.joint]
        none = np.zeros(0)
        for topic, message in (
            (topics.joint_states, types.types[state](header, names, q, none, none)),
            (robot.camera.recorded_topic, types.types[image](header, "rgb8; png compressed bgr8", png)),
            (topics.command, types.types[array](layout, q[:-1])),
            (topics.gripper_command, types.types[array](layout, q[-1:])),
        ):
            writer.write(topic, ns, bytes(types.serialize_cdr(message, kinds[topic])))
    writer.keep()
    return path


# -- without starting anything -----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_describes_itself(name):
    """What `ros2 launch atk_bringup NAME.launch.py --show-args` prints."""
    arguments = arguments_of(name)
    assert set(arguments) >= COMMON
    for argument in arguments.values():
        assert len(argument.description) > 10, argument.name
        default = argument.default_value
        if default is not None and [getattr(part, "text", None) for part in default] in (["true"], ["false"]):
            assert argument.choices == ["true", "false"], argument.name


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_lists_every_argument(name):
    readme = (PACKAGE / "README.md").read_text()
    section = re.search(rf"^### `{name}\.launch\.py`\n(.*?)(?=^##)", readme, re.MULTILINE | re.DOTALL)
    assert section, f"README.md has no section for {name}.launch.py"
    own = set(arguments_of(name)) - COMMON
    assert set(re.findall(r"^\| `(\w+)` \|", section[1], re.MULTILINE)) == own


# -- refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("robot", {}, r"run_folder"),
        ("sim", {"driver": "nobody"}, r"'topics', 'expert'"),
        ("sim", {"robot": "no_such_robot"}, r"no robot description at .*no_such_robot.*sim_panda"),
        (
            "robot",
            {"run_folder": "/nowhere", "robot": "sim_panda_two_cameras", "camera": "true"},
            r"camera_source:=/dev/video0 names 1 for camera number 2",
        ),
        ("replay", {"run_folder": "/nowhere"}, r"no robot description at /nowhere/robot.yaml"),
        # The nodes come up, refuse, and launch ends with them.
        ("robot", {"run_folder": "/nowhere", "robot": "sim_panda"}, r"cannot configure: .*/nowhere"),
    ],
)
def test_a_launch_that_cannot_work_ends_and_says_why(name, arguments, message, log, domain_id):
    with LaunchedGraph(LAUNCH / f"{name}.launch.py", arguments, log, domain_id) as graph:
        graph.ends()
        assert re.search(message, graph.log()), graph.log()
        assert not graph.left_over()


# -- in which order, and what may end ------------------------------------------------------------------


def transitions(graph: LaunchedGraph, *nodes: str) -> list[tuple[str, str]]:
    """(node, state it is in now), in the order in which they are told."""
    heard: list[tuple[str, str]] = []
    for node in nodes:
        graph.node.create_subscription(
            TransitionEvent,
            f"{node}/transition_event",
            lambda message, node=node: heard.append((node, message.goal_state.label)),
            50,
        )
    return heard


def test_nodes_are_configured_in_order_and_then_activated_in_it(run_folder, tmp_path, log, domain_id):
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copy(run_folder / "template.png", folder)
    tuning = tmp_path / "params.yaml"
    tuning.write_text("/**/camera: {ros__parameters: {loop: true}}")
    arguments = {
        "run_folder": run_folder,
        "camera": "true",
        "camera_source": folder,
        "params_file": tuning,
        "velocity_scale": "0.25",
    }
    order = ("/camera", "/tracker", "/moveit", "/policy")
    with LaunchedGraph(LAUNCH / "robot.launch.py", arguments, log, domain_id) as graph:
        heard = transitions(graph, *order)
        graph.wait_for("all to be active", lambda: ("/policy", "active") in heard)
        reached = [(node, state) for node, state in heard if state in ("inactive", "active")]
        in_order = [(node, state) for state in ("inactive", "active") for node in order]
        # Events before this node hears another are lost; those that came are in order, and launch says them all.
        assert reached == [one for one in in_order if one in reached]
        told = re.findall(r"\[bringup\]: (\S+) is (configured|activated)", graph.log())
        assert told == [(node, what) for what in ("configured", "activated") for node in order]
        assert graph.parameters("/policy", ["velocity_scale"]) == [0.25]
        # What it is bound to when it is configured cannot be changed later.
        refused = graph.call(
            SetParameters,
            "/policy/set_parameters",
            SetParameters.Request(parameters=[Parameter("velocity_scale", value=1.0).to_parameter_msg()]),
        )
        assert not refused.results[0].successful
        assert graph.interrupt() == 0
        assert not graph.left_over()


def test_without_autostart_nodes_wait_for_a_manager(run_folder, log, domain_id):
    arguments = {"run_folder": run_folder, "autostart": "false"}
    with LaunchedGraph(LAUNCH / "sim.launch.py", arguments, log, domain_id) as graph:
        graph.wait_for_nodes("/sim", "/tracker", "/policy")
        for node in ("/sim", "/tracker", "/policy"):
            state = graph.call(GetState, f"{node}/get_state", GetState.Request()).current_state
            assert state.label == "unconfigured"


def test_a_node_that_only_looks_on_may_crash_and_one_that_works_may_not(run_folder, log, domain_id):
    arguments = {"run_folder": run_folder, "joint_monitor": "true", "log_level": "warn"}
    with LaunchedGraph(LAUNCH / "sim.launch.py", arguments, log, domain_id) as graph:
        statuses = graph.received(PolicyStatus, "policy/status")
        graph.wait_for_nodes("/sim", "/tracker", "/policy", "/joint_monitor")
        graph.wait_for("answers to images", lambda: len(statuses) > 3)
        os.kill(graph.pid("joint_monitor_node"), signal.SIGKILL)
        graph.wait_for("its end", lambda: "process has died" in graph.log())
        count = len(statuses)
        graph.wait_for("further answers", lambda: len(statuses) > count + 20)
        os.kill(graph.pid("tracker_node"), signal.SIGKILL)
        graph.ends()
        assert not graph.left_over()


# -- up and down -------------------------------------------------------------------------------------


def test_sim_brings_the_documented_graph_up_and_down(run_folder, log, domain_id):
    arguments = {"run_folder": run_folder, "log_level": "warn", "seed": 5}
    with LaunchedGraph(LAUNCH / "sim.launch.py", arguments, log, domain_id) as graph:
        graph.wait_for_nodes("/sim", "/tracker", "/policy")
        keypoints, statuses = (
            graph.received(KeypointArray, "keypoints"),
            graph.received(PolicyStatus, "policy/status"),
        )
        episodes = graph.received(EpisodeStatus, "sim/episode")
        graph.wait_for("answers to images", lambda: len(keypoints) > 3 and len(statuses) > 3 and episodes)
        assert episodes[0].seed == 5
        documented = {
            f"/{topic.lstrip('/')}": kind.replace("/", "/msg/") for topic, kind in documented_topics().items()
        }
        published = graph.published()
        ours = {topic for topic in published if not topic.startswith(("/parameter_events", "/rosout"))}
        ours = {
            topic for topic in ours if "/_action/" not in topic and not topic.endswith("/transition_event")
        }
        elsewhere = {  # another command sink, a joystick, what is started or installed only on request
            "/joint_trajectory_controller/joint_trajectory",
            "/joy",
            "/keypoints/annotations",
            "/moveit/going_home",
            "/policy/commanded_joint_states",
            "/policy/plan",
            "/policy/plan_check",
            "/policy/joints_image",
            "/recorder/status",
            "/tf_static",
        }
        assert ours - elsewhere == set(documented) - elsewhere
        assert {topic: published[topic] for topic in ours} == {topic: documented[topic] for topic in ours}
        for node in ("/sim", "/tracker", "/policy"):
            # Launch brings them up.
            assert graph.parameters(node, ["use_sim_time", "autostart"]) == [True, False]
        # In lock-step no image may be lost.
        (tracker,) = graph.node.get_subscriptions_info_by_topic("/camera/image_raw")
        assert tracker.node_name == "tracker"
        assert tracker.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        assert graph.interrupt() == 0
        assert not graph.left_over()
    assert "Traceback" not in log.read_text()


def test_two_robots_share_one_graph(tmp_path, log, domain_id):
    both = tmp_path / "both.launch.py"
    both.write_text(
        f"""
from launch import LaunchDescription
from launch.actions import GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

def generate_launch_description():
    return LaunchDescription([
        GroupAction([IncludeLaunchDescription(
            PythonLaunchDescriptionSource({str(LAUNCH / "sim.launch.py")!r}),
            launch_arguments={{"namespace": name, "driver": "expert", "seed": seed}}.items(),
        )])
        for name, seed in (("left", "1"), ("right", "2"))
    ])
"""
    )
    with LaunchedGraph(both, {}, log, domain_id) as graph:
        graph.wait_for_nodes("/left/sim", "/right/sim")
        episodes = {name: graph.received(EpisodeStatus, f"/{name}/sim/episode") for name in ("left", "right")}
        images = {name: graph.received(Image, f"/{name}/camera/image_raw") for name in ("left", "right")}
        graph.wait_for("images of both", lambda: all([*episodes.values(), *images.values()]))
        assert {status.seed for status in episodes["left"]} == {1}
        assert {status.seed for status in episodes["right"]} == {2}
        published = graph.published()
        absolute = {"/diagnostics", "/parameter_events", "/rosout"}
        assert {topic.split("/")[1] for topic in set(published) - absolute} == {"left", "right"}
        assert "/left/clock" in published


def test_replay_commands_no_robot(run_folder, log, domain_id):
    """Recorded (compressed) images in, commands out on replay/... only."""
    with LaunchedGraph(LAUNCH / "replay.launch.py", {"run_folder": run_folder}, log, domain_id) as graph:
        graph.wait_for_nodes("/tracker", "/policy")
        keypoints = graph.received(KeypointArray, "keypoints")
        clock = graph.node.create_publisher(Clock, "/clock", 10)
        joints = graph.node.create_publisher(JointState, "joint_states", 10)
        images = graph.node.create_publisher(CompressedImage, "camera/image_raw/compressed", 10)
        graph.wait_for(
            "nodes that listen to the bag",
            lambda: images.get_subscription_count()
            and joints.get_subscription_count()
            and clock.get_subscription_count() == 2,
        )
        picture = cv2.cvtColor(cv2.imread(str(run_folder / "template.png")), cv2.COLOR_BGR2RGB)
        message = fill_png_message(CompressedImage(), np.ascontiguousarray(picture))
        message.header.stamp.sec = 7
        clock.publish(Clock(clock=message.header.stamp))
        images.publish(message)
        graph.wait_for("keypoints of the recorded image", lambda: keypoints)
        assert stamp_ns_of(keypoints[0]) == 7_000_000_000
        published = graph.published()
        assert "/replay/forward_position_controller/commands" in published
        assert "/replay/gripper_position_controller/commands" in published
        assert not [topic for topic in published if topic.startswith(("/forward", "/gripper", "/joint_traj"))]
        assert graph.parameters("/policy", ["use_sim_time"]) == [True]


def test_replay_plays_a_bag_by_itself_and_shows_the_joints(run_folder, bag, log, domain_id):
    """Without `ros2 bag play`: paused until everybody listens, then with /clock, to the end."""
    arguments = {
        "run_folder": run_folder,
        "bag": bag,
        "rate": 2,
        "start_paused": "true",
        "joint_monitor": "true",
    }
    with LaunchedGraph(LAUNCH / "replay.launch.py", arguments, log, domain_id) as graph:
        graph.wait_for_nodes("/tracker", "/policy", "/player", "/joint_monitor")
        keypoints, clocks = graph.received(KeypointArray, "keypoints"), graph.received(Clock, "/clock")
        commands = graph.received(Float64MultiArray, "forward_position_controller/commands")
        pictures = graph.received(Image, "policy/joints_image")
        resumed = graph.call(Trigger, "player/resume", Trigger.Request())
        assert resumed.success
        graph.wait_for("the end of the bag", lambda: f"end of {bag.name}" in graph.log())
        graph.wait_for("a picture of the joints", lambda: pictures)
        stamps = [stamp_ns_of(message) for message in keypoints]
        assert stamps == sorted(set(stamps))
        assert len(stamps) == BAG_IMAGES
        assert len(clocks) > BAG_IMAGES
        assert not commands  # recorded ones reach no robot
        assert graph.interrupt() == 0


def test_record_with_the_simulator_writes_a_demonstration(tmp_path, log, domain_id):
    arguments = {"simulator": "true", "output": tmp_path / "demonstrations"}
    with LaunchedGraph(LAUNCH / "record.launch.py", arguments, log, domain_id) as graph:
        graph.wait_for_nodes("/sim", "/recorder")
        assert graph.parameters("/recorder", ["use_sim_time"]) == [True]
        episodes = graph.received(EpisodeStatus, "sim/episode")
        request = RecordEpisode.Request
        # The recorder refuses until every topic has its publisher.
        graph.wait_for(
            "a start of the recording",
            lambda: graph.call(
                RecordEpisode, "recorder/episode", request(command=request.START, name="one")
            ).success,
        )
        assert graph.call(ResetEpisode, "sim/reset", ResetEpisode.Request(seed=1)).success
        graph.wait_for("twenty periods of the expert", lambda: len(episodes) >= 20)
        answer = graph.call(RecordEpisode, "recorder/episode", request(command=request.KEEP))
        assert answer.success, answer.message
    assert list((tmp_path / "demonstrations" / "one").glob("*.mcap"))


def test_record_with_the_camera_node_writes_a_demonstration(tmp_path, log, domain_id):
    """On a robot without a camera driver: the camera node feeds the recorder under the names of the robot description."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(3):
        cv2.imwrite(str(folder / f"{k}.png"), rng.integers(0, 256, (480, 640, 3), dtype=np.uint8))
    tuning = tmp_path / "params.yaml"
    tuning.write_text("/**/camera: {ros__parameters: {loop: true}}")
    arguments = {
        "output": tmp_path / "demonstrations",
        "camera": "true",
        "camera_source": folder,
        "namespace": "arm",
        "params_file": tuning,
    }
    with LaunchedGraph(LAUNCH / "record.launch.py", arguments, log, domain_id) as graph:
        graph.wait_for_nodes("/arm/camera", "/arm/recorder")
        joints = graph.node.create_publisher(JointState, "/arm/joint_states", 50)
        arm, gripper = (
            graph.node.create_publisher(Float64MultiArray, f"/arm/{name}_position_controller/commands", 50)
            for name in ("forward", "gripper")
        )

        def drive() -> None:
            message = JointState(name=[*JOINTS, "panda_finger_joint1"], position=[*HOME_RAD, 0.02])
            message.header.stamp = graph.node.get_clock().now().to_msg()
            joints.publish(message)
            arm.publish(Float64MultiArray(data=HOME_RAD))
            gripper.publish(Float64MultiArray(data=[0.04]))

        graph.node.create_timer(0.02, drive)
        request = RecordEpisode.Request
        graph.wait_for(
            "a start of the recording",
            lambda: graph.call(
                RecordEpisode, "/arm/recorder/episode", request(command=request.START, name="one")
            ).success,
        )
        time.sleep(2.0)
        answer = graph.call(RecordEpisode, "/arm/recorder/episode", request(command=request.KEEP))
        assert answer.success, answer.message
    bag = tmp_path / "demonstrations" / "one"
    frames = list(read_frames(bag, bag_robot(bag)))
    assert len(frames) > 5
    assert frames[0].payload.shape == (480, 640, 3)


def test_two_cameras_have_a_tracker_each_and_one_policy(two_cameras, tmp_path, log, domain_id):
    """From the camera nodes to the policy; the second tracker in the namespace of its camera, with its own set."""
    folders = []
    for name, template in (("camera", "template.png"), ("left", "cameras/left/template.png")):
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        shutil.copy(two_cameras / template, folders[-1])
    tuning = tmp_path / "params.yaml"
    tuning.write_text("/**/camera: {ros__parameters: {loop: true}}")
    arguments = {
        "run_folder": two_cameras,
        "namespace": "arm",
        "camera": "true",
        "camera_source": ",".join(map(str, folders)),
        "params_file": tuning,
    }
    with LaunchedGraph(LAUNCH / "robot.launch.py", arguments, log, domain_id) as graph:
        graph.wait_for_nodes(
            *("/arm/camera", "/arm/left/camera", "/arm/tracker", "/arm/left/tracker"),
            *("/arm/moveit", "/arm/policy"),
        )
        joints = graph.node.create_publisher(JointState, "/arm/joint_states", 10)

        def publish_joints() -> None:
            message = JointState(name=[*JOINTS, "panda_finger_joint1"], position=[*HOME_RAD, 0.02])
            message.header.stamp = graph.node.get_clock().now().to_msg()
            joints.publish(message)

        graph.node.create_timer(0.02, publish_joints)
        first = graph.received(KeypointArray, "/arm/keypoints")
        left = graph.received(KeypointArray, "/arm/left/keypoints")
        statuses = graph.received(PolicyStatus, "/arm/policy/status")
        graph.wait_for("keypoints of both cameras and an answer", lambda: first and left and statuses)
        assert {message.set_name for message in first} == {"test"}
        assert {message.set_name for message in left} == {"test_left"}
        assert list(left[0].ids) == [4, 5, 6]
        images = {topic for topic, kind in graph.published().items() if kind == "sensor_msgs/msg/Image"}
        assert {"/arm/camera/image_raw", "/arm/left/camera/image_raw"} <= images


def test_the_simulator_starts_trackers_for_the_cameras_that_the_policy_sees_through(
    run_folder, two_cameras, log, domain_id
):
    arguments = {"run_folder": two_cameras, "robot": "sim_panda_two_cameras", "log_level": "warn"}
    with LaunchedGraph(LAUNCH / "sim.launch.py", arguments, log, domain_id) as graph:
        graph.wait_for_nodes("/sim", "/tracker", "/left/tracker", "/policy")
        keypoints, statuses = (
            graph.received(KeypointArray, "left/keypoints"),
            graph.received(PolicyStatus, "policy/status"),
        )
        graph.wait_for("answers to images", lambda: len(keypoints) > 3 and len(statuses) > 3)
        (tracker,) = graph.node.get_subscriptions_info_by_topic("/left/camera/image_raw")
        assert tracker.node_namespace == "/left"
        assert tracker.qos_profile.reliability == ReliabilityPolicy.RELIABLE


def test_a_camera_without_keypoints_needs_no_tracker(run_folder, log, domain_id):
    """The policy of a run folder with one camera, on a robot with two."""
    arguments = {"run_folder": run_folder, "robot": "sim_panda_two_cameras", "log_level": "warn"}
    with LaunchedGraph(LAUNCH / "sim.launch.py", arguments, log, domain_id) as graph:
        graph.wait_for_nodes("/sim", "/tracker", "/policy")
        statuses = graph.received(PolicyStatus, "policy/status")
        graph.wait_for("answers to images", lambda: len(statuses) > 3)


def test_robot_waits_for_a_request_and_plays_images_from_a_folder(run_folder, tmp_path, log, domain_id):
    """The camera node beside tracker and policy; without joint states and a goal nothing is commanded."""
    folder = tmp_path / "images"
    folder.mkdir()
    template = cv2.imread(str(run_folder / "template.png"))
    for k in range(3):
        cv2.imwrite(str(folder / f"{k}.png"), template)
    arguments = {"run_folder": run_folder, "camera": "true", "camera_source": folder, "namespace": "arm"}
    with LaunchedGraph(LAUNCH / "robot.launch.py", arguments, log, domain_id) as graph:
        graph.wait_for_nodes("/arm/camera", "/arm/tracker", "/arm/moveit", "/arm/policy")
        commands = graph.received(Float64MultiArray, "/arm/forward_position_controller/commands")
        assert graph.parameters("/arm/tracker", ["use_sim_time"]) == [False]
        images = "/arm/camera/image_raw"
        graph.wait_for("the tracker to take images", lambda: graph.node.count_subscribers(images))
        (tracker,) = graph.node.get_subscriptions_info_by_topic(images)
        assert tracker.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
        time.sleep(1.0)
        assert not commands


def test_the_moveit_node_runs_where_the_robot_description_asks_for_it(run_folder, tmp_path, log, domain_id):
    """Without MoveIt it ends with what to install, and the launch with it: plans that nobody checks are not carried out."""
    robot = tmp_path / "robot.yaml"
    text = (PACKAGE / "config" / "robots" / "sim_panda.yaml").read_text()
    assert "scene_check: model" in text
    robot.write_text(text.replace("scene_check: model", "scene_check: moveit"))
    with LaunchedGraph(
        LAUNCH / "robot.launch.py", {"run_folder": run_folder, "robot": robot}, log, domain_id
    ) as graph:
        graph.ends()
        assert re.search(r"apt install ros-jazzy-moveit-py|parameter 'moveit_config' is ''", graph.log()), (
            graph.log()
        )
        assert "/moveit cannot be configured; its log says why" in graph.log()
        assert "/policy is configured" not in graph.log()
        assert not graph.left_over()


def test_select_offers_its_action(log, domain_id):
    with LaunchedGraph(LAUNCH / "select.launch.py", {}, log, domain_id) as graph:
        graph.wait_for_nodes("/selection")
        graph.wait_for(
            "the action server",
            lambda: "/selection/select/_action/status" in graph.published(),
        )
        assert graph.interrupt() == 0
        assert not graph.left_over()
