"""Where a camera stands is read whole or refused by name, wherever it is written: file, robot description, run folder, bag."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml
from bag_writing import ROBOT, ROBOT_FILE, TYPES, write_demonstration
from geometry_msgs.msg import PoseStamped, TransformStamped
from hypothesis import given
from hypothesis import strategies as st
from placed_cameras import calibration_of, camera_at, cameras
from rosbags.rosbag2 import StoragePlugin, Writer
from sensor_msgs.msg import CameraInfo

from atk_perception.bag_calibration import BagDepth, bag_calibration, bag_viewpoint
from atk_perception.camera_calibration import CameraCalibration, CameraCalibrationError
from atk_perception.camera_placing import CameraPlacing, ViewpointError, make_viewpoint
from atk_perception.frames import BagError
from atk_perception.keypoint_set import CALIBRATION_FILE, KeypointSet, KeypointSetError
from atk_perception.points_in_camera import CalibrationError
from atk_perception.rigid_transforms import (
    FrameError,
    TransformTree,
    difference,
    inverse,
    mean_pose,
    pose,
    pose_from_rpy,
    quaternion_xyzw,
)
from atk_perception.robot_description import RobotDescription, RobotDescriptionError
from atk_perception.viewpoint import PlacedCamera, reproject

CAMERA = camera_at((0.9, 0.1, 0.6), 0.1, "plumb_bob")
CALIBRATION = calibration_of(CAMERA, "panda_link0")
UV = np.array([[20.0, 12.0], [30.0, 20.0]], np.float32)
TEMPLATE = np.zeros((480, 640, 3), np.uint8)

angles = st.floats(-3.1, 3.1)
metres = st.floats(-2.0, 2.0)


# -- poses -------------------------------------------------------------------------------------------


@given(st.tuples(metres, metres, metres), st.tuples(angles, angles, angles))
def test_a_pose_survives_its_quaternion_and_its_inverse(translation, rpy):
    T = pose_from_rpy(translation, rpy)
    np.testing.assert_allclose(pose(translation, quaternion_xyzw(T)), T, atol=1e-12)
    np.testing.assert_allclose(T @ inverse(T), np.eye(4), atol=1e-12)
    assert difference(T, T)[1] < 1e-9
    np.testing.assert_allclose(mean_pose([T, T]), T, atol=1e-12)


def test_roll_pitch_yaw_are_those_of_urdf():
    T = pose_from_rpy([0, 0, 0], [0.3, 0.0, 0.0])  # roll alone turns y towards z
    np.testing.assert_allclose(T[:3, 1], [0.0, np.cos(0.3), np.sin(0.3)])
    yaw_after_pitch = pose_from_rpy([0, 0, 0], [0.0, 0.4, np.pi / 2])
    np.testing.assert_allclose(yaw_after_pitch[:3, 0], [0.0, np.cos(0.4), -np.sin(0.4)], atol=1e-12)


def stamped(parent: str, child: str, T: np.ndarray) -> TransformStamped:
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    place, turn = message.transform.translation, message.transform.rotation
    place.x, place.y, place.z = T[:3, 3].tolist()
    turn.x, turn.y, turn.z, turn.w = quaternion_xyzw(T).tolist()
    return message


class Transforms:
    """As tf2_msgs/TFMessage, which PyPI does not have."""

    def __init__(self, *transforms: TransformStamped) -> None:
        self.transforms = list(transforms)


def test_tf_is_followed_up_and_down_again():
    base, mount, optical = (pose_from_rpy([x, 0.2, 0.3], [0.1, x, -0.3]) for x in (0.5, 1.0, 1.5))
    tree = TransformTree()
    tree.add(Transforms(stamped("world", "base", base), stamped("/mount", "/optical", optical)))
    with pytest.raises(
        FrameError, match=r"does not connect 'optical' with 'base'; it knows \['base', 'mount'"
    ):
        tree.look_up("base", "optical")
    tree.add(Transforms(stamped("world", "mount", mount)))
    np.testing.assert_allclose(tree.look_up("base", "optical"), inverse(base) @ mount @ optical, atol=1e-12)
    np.testing.assert_allclose(tree.look_up("mount", "optical"), optical, atol=1e-12)
    tree.add(Transforms(stamped("world", "mount", base)))  # it was moved
    np.testing.assert_allclose(tree.look_up("base", "optical"), optical, atol=1e-12)
    tree.add(Transforms(stamped("optical", "world", base)))
    with pytest.raises(FrameError, match="loop"):
        tree.look_up("base", "optical")


# -- the file ----------------------------------------------------------------------------------------


@given(cameras())
def test_a_calibration_survives_its_own_dump(camera):
    calibration = calibration_of(camera)
    again = CameraCalibration.model_validate(yaml.safe_load(calibration.dump()))
    assert again.camera.same_as(calibration.camera)
    assert again.camera.same_as(camera)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("format_version", 2, "has format_version 2; this release reads 1"),
        ("camera_matrix", [0.0] * 9, "expected fx 0 cx, 0 fy cy, 0 0 1"),
        ("camera_matrix", [700.0] * 8, "camera_matrix: .* at least 9"),
        ("rotation_xyzw", [0.5, 0.5, 0.5, 0.6], "no unit quaternion"),
        ("translation_m", [0.0, float("nan"), 0.0], "translation_m.1: .* finite"),
        ("distortion", [0.1, 0.2], "plumb_bob has 4 or 5 coefficients, got 2"),
        ("distortion_model", "thin_prism", "distortion_model: .*'plumb_bob'"),
        ("base_frame", "", "base_frame"),
        ("rotation", [0, 0, 0, 1], "rotation: Extra inputs"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, entry, value, message):
    content = {**yaml.safe_load(CALIBRATION.dump()), entry: value}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(CameraCalibrationError, match=rf"(?s)c\.yaml.*{message}"):
        CameraCalibration.load(tmp_path / "c.yaml")


def test_a_file_that_is_no_calibration_is_named(tmp_path):
    with pytest.raises(CameraCalibrationError, match="calibrate_camera"):
        CameraCalibration.load(tmp_path / "missing.yaml")
    (tmp_path / "info.yaml").write_text("image_width: 640\n")
    with pytest.raises(CameraCalibrationError, match="does not say where the camera stands"):
        CameraCalibration.load(tmp_path / "info.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(CameraCalibrationError, match="not readable YAML"):
        CameraCalibration.load(tmp_path / "broken.yaml")


def info_of(camera: PlacedCamera) -> CameraInfo:
    K = camera.K.ravel().tolist()
    P = np.hstack([camera.K * [[0.9], [0.9], [1.0]], np.zeros((3, 1))]).ravel().tolist()
    return CameraInfo(
        width=camera.width,
        height=camera.height,
        k=K,
        p=P,
        d=camera.distortion.tolist(),
        distortion_model=camera.distortion_model,
    )


def test_camera_info_gives_the_intrinsics():
    found = CameraCalibration.of(info_of(CAMERA), CAMERA.T_base_camera, "base")
    assert found.camera.same_as(CAMERA)
    rectified = CameraCalibration.of(info_of(CAMERA), CAMERA.T_base_camera, "base", rectified=True).camera
    assert rectified.K[0, 0] == pytest.approx(0.9 * CAMERA.K[0, 0])
    assert not rectified.distortion.any()
    with pytest.raises(CalibrationError, match="uncalibrated"):
        CameraCalibration.of(CameraInfo(width=640, height=480), np.eye(4), "base")
    odd = info_of(CAMERA)
    odd.distortion_model = "thin_prism_fisheye"
    with pytest.raises(CameraCalibrationError, match="distortion_model"):
        CameraCalibration.of(odd, np.eye(4), "base")
    odd.d = [0.0] * 5  # a model that does nothing is none
    assert not CameraCalibration.of(odd, np.eye(4), "base").camera.distortion.any()


# -- robot description and keypoint set -------------------------------------------------------------


def robot_text(calibration) -> str:
    content = yaml.safe_load(ROBOT_FILE.read_text())
    content["camera"]["calibration"] = calibration
    return yaml.safe_dump(content)


def test_a_robot_description_names_a_file_and_its_copies_hold_what_it_said(tmp_path):
    CALIBRATION.save(tmp_path / "camera.yaml")
    (tmp_path / "robot.yaml").write_text(robot_text("camera.yaml"))
    robot = RobotDescription.load(tmp_path / "robot.yaml")
    assert robot.camera.calibration == CALIBRATION
    (tmp_path / "camera.yaml").unlink()
    assert RobotDescription.parse(robot.dump(), "copy") == robot
    # Nobody tracks by it, so caches stay good.
    assert robot.fingerprint() == ROBOT.fingerprint()
    with pytest.raises(RobotDescriptionError, match=r"camera\.calibration: .*cannot be read.* \(line \d+\)"):
        RobotDescription.load(tmp_path / "robot.yaml")
    with pytest.raises(RobotDescriptionError, match=r"RobotDescription\.load"):
        RobotDescription.parse(robot_text("camera.yaml"), "text")
    (tmp_path / "robot.yaml").write_text(robot_text({"format_version": 1}))
    with pytest.raises(RobotDescriptionError, match=r"camera\.calibration\.base_frame: Field required"):
        RobotDescription.load(tmp_path / "robot.yaml")


def test_without_the_new_entries_a_robot_is_written_and_known_as_before():
    plain = ROBOT.model_copy(update={"work_plane": None})
    assert "calibration" not in plain.dump()
    assert "depth_topic" not in plain.dump()
    assert "work_plane" not in plain.dump()
    assert plain.fingerprint() == ROBOT.fingerprint()
    with_depth = ROBOT.model_copy(
        update={"camera": ROBOT.camera.model_copy(update={"depth_topic": "depth/image"})}
    )
    assert with_depth.fingerprint() == ROBOT.fingerprint()
    assert RobotDescription.parse(with_depth.dump(), "dump") == with_depth
    with pytest.raises(RobotDescriptionError, match=r"work_plane\.normal: is 0"):
        RobotDescription.parse(
            yaml.safe_dump({**yaml.safe_load(plain.dump()), "work_plane": {"normal": [0, 0, 0]}}), "robot"
        )


def keypoint_set(calibration: CameraCalibration | None) -> KeypointSet:
    return KeypointSet.create("set", UV, TEMPLATE, camera_name="camera", calibration=calibration)


def test_a_keypoint_set_keeps_where_its_camera_stood(tmp_path):
    keypoint_set(CALIBRATION).save(tmp_path)
    again = KeypointSet.load(tmp_path)
    assert again.calibration == CALIBRATION
    assert again.subset([1]).training_camera.same_as(CAMERA)
    keypoint_set(None).save(tmp_path)  # another selection, which does not know
    assert KeypointSet.load(tmp_path).calibration is None
    CALIBRATION.save(tmp_path / CALIBRATION_FILE)  # as a person would put it there
    assert KeypointSet.load(tmp_path).calibration == CALIBRATION
    (tmp_path / CALIBRATION_FILE).write_text("format_version: 9\n")
    with pytest.raises(KeypointSetError, match="format_version 9"):
        KeypointSet.load(tmp_path)


def test_a_template_of_another_size_scales_the_camera():
    small = KeypointSet.create("set", UV, TEMPLATE[::2, ::2], calibration=CALIBRATION)
    assert small.training_camera.K[0, 0] == pytest.approx(CAMERA.K[0, 0] / 2)


def test_what_is_missing_is_said_when_reprojection_is_asked_for():
    assert make_viewpoint("none", keypoint_set(None), ROBOT) is None
    for name in ("plane", "depth"):
        with pytest.raises(KeypointSetError, match=r"(?s)no calibration\.yaml.*calibrate_camera"):
            make_viewpoint(name, keypoint_set(None), ROBOT)
    with pytest.raises(ViewpointError, match="no entry 'work_plane'"):
        make_viewpoint("plane", keypoint_set(CALIBRATION), ROBOT.model_copy(update={"work_plane": None}))
    with pytest.raises(ViewpointError, match="unknown viewpoint 'table'"):
        make_viewpoint("table", keypoint_set(CALIBRATION), ROBOT)
    assert make_viewpoint("depth", keypoint_set(CALIBRATION), ROBOT).needs_depth
    assert not make_viewpoint("plane", keypoint_set(CALIBRATION), ROBOT).needs_depth


# -- the live camera ---------------------------------------------------------------------------------


def with_calibration(calibration: CameraCalibration | None) -> RobotDescription:
    camera = ROBOT.camera.model_copy(update={"calibration": calibration})
    return ROBOT.model_copy(update={"camera": camera})


def test_a_calibration_file_places_the_live_camera():
    moved = camera_at((1.0, 0.1, 0.6), 0.2, "plumb_bob")
    placing = CameraPlacing(
        keypoint_set(CALIBRATION), with_calibration(calibration_of(moved, "panda_link0")), "calibration"
    )
    assert placing.camera.same_as(moved)
    assert "10.0 cm and" in placing.describe()
    placing.add_camera_info(info_of(moved))
    assert placing.camera.same_as(moved)
    half = info_of(moved)
    half.width, half.height, half.k = 320, 240, [x / 2 for x in half.k]
    placing.add_camera_info(half)  # the driver runs at half the size: the same camera
    assert placing.camera.same_as(moved)
    placing.add_camera_info(info_of(replace(moved, K=moved.K * [[1.3], [1.3], [1.0]])))
    assert "the camera runs in another setting" in placing.camera
    with pytest.raises(ViewpointError, match="no entry 'calibration'"):
        CameraPlacing(keypoint_set(CALIBRATION), ROBOT, "calibration")
    with pytest.raises(
        ViewpointError, match="is in frame 'board', that of the training camera in 'panda_link0'"
    ):
        CameraPlacing(
            keypoint_set(CALIBRATION), with_calibration(calibration_of(moved, "board")), "calibration"
        )
    with pytest.raises(ViewpointError, match="unknown pose_from 'guess'"):
        CameraPlacing(keypoint_set(CALIBRATION), ROBOT, "guess")
    other = KeypointSet.create("set", UV, TEMPLATE, camera_name="wrist", calibration=CALIBRATION)
    with pytest.raises(ViewpointError, match=r"has no camera 'wrist'.*\['camera'\]"):
        CameraPlacing(other, ROBOT, "tf")


def pose_message(frame: str, T: np.ndarray) -> PoseStamped:
    message = PoseStamped()
    message.header.frame_id = frame
    position, turn = message.pose.position, message.pose.orientation
    position.x, position.y, position.z = T[:3, 3].tolist()
    turn.x, turn.y, turn.z, turn.w = quaternion_xyzw(T).tolist()
    return message


@pytest.mark.parametrize("info_first", [True, False])
def test_a_pose_topic_places_the_live_camera_in_whatever_order_it_comes(info_first):
    placing = CameraPlacing(keypoint_set(CALIBRATION), ROBOT, "topic")
    messages = [
        lambda: placing.add_camera_info(info_of(CAMERA)),
        lambda: placing.add_pose(pose_message("panda_link0", CAMERA.T_base_camera)),
    ]
    assert isinstance(placing.camera, str)
    for message in messages if info_first else reversed(messages):
        message()
    assert placing.camera.same_as(CAMERA)
    placing.add_pose(pose_message("map", CAMERA.T_base_camera))
    assert "is in frame 'map'" in placing.camera
    placing.add_pose(PoseStamped(header=pose_message("panda_link0", np.eye(4)).header))
    assert isinstance(placing.camera, PlacedCamera)  # a new message's quaternion is 0 0 0 1
    broken = pose_message("panda_link0", np.eye(4))
    broken.pose.orientation.w = 0.0
    placing.add_pose(broken)
    assert "quaternion" in placing.camera
    placing.add_camera_info(CameraInfo(width=640, height=480))
    placing.add_pose(pose_message("panda_link0", CAMERA.T_base_camera))
    assert "uncalibrated" in placing.camera


def test_tf_places_the_live_camera():
    placing = CameraPlacing(keypoint_set(CALIBRATION), ROBOT, "tf")
    placing.add_camera_info(info_of(CAMERA))
    assert placing.camera == "TF has not said yet where 'camera_optical_frame' is"
    mount = pose_from_rpy([0.4, 0.0, 0.2], [0.0, 0.0, 0.5])
    placing.add_tf(
        Transforms(stamped("mount", "camera_optical_frame", inverse(mount) @ CAMERA.T_base_camera))
    )
    assert "does not connect" in placing.camera
    placing.add_tf(Transforms(stamped("panda_link0", "mount", mount)))
    np.testing.assert_allclose(placing.camera.T_base_camera, CAMERA.T_base_camera, atol=1e-9)
    before = placing.camera
    placing.add_tf(Transforms(stamped("panda_link0", "panda_link1", mount)))
    assert placing.camera is before


# -- bags --------------------------------------------------------------------------------------------

INFO, POSE, TF = "sensor_msgs/msg/CameraInfo", "geometry_msgs/msg/PoseStamped", "tf2_msgs/msg/TFMessage"


def bag_with(path, *messages):
    """A bag of (topic, type, message) in this order."""
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {
            topic: writer.add_connection(f"/{topic}", kind, typestore=TYPES)
            for topic, kind in {t: k for t, k, _ in messages}.items()
        }
        for number, (topic, kind, message) in enumerate(messages):
            writer.write(connections[topic], 10**9 + number, TYPES.serialize_cdr(message, kind))
    return path


def recorded(kind: str, **fields):
    return TYPES.types[kind](**fields)


def header(frame: str):
    stamp = recorded("builtin_interfaces/msg/Time", sec=1, nanosec=0)
    return recorded("std_msgs/msg/Header", stamp=stamp, frame_id=frame)


def recorded_info(camera: PlacedCamera):
    info = info_of(camera)
    region = recorded(
        "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
    )
    return recorded(
        INFO,
        header=header("camera_optical_frame"),
        height=info.height,
        width=info.width,
        distortion_model=info.distortion_model,
        d=np.array(info.d),
        k=np.array(info.k),
        r=np.eye(3).ravel(),
        p=np.array(info.p),
        binning_x=0,
        binning_y=0,
        roi=region,
    )


def geometry(T: np.ndarray):
    quaternion = dict(zip("xyzw", quaternion_xyzw(T).tolist(), strict=True))
    return dict(zip("xyz", T[:3, 3].tolist(), strict=True)), recorded(
        "geometry_msgs/msg/Quaternion", **quaternion
    )


def recorded_pose(frame: str, T: np.ndarray):
    place, turn = geometry(T)
    point = recorded("geometry_msgs/msg/Point", **place)
    return recorded(
        POSE, header=header(frame), pose=recorded("geometry_msgs/msg/Pose", position=point, orientation=turn)
    )


def recorded_tf(parent: str, child: str, T: np.ndarray):
    place, turn = geometry(T)
    transform = recorded(
        "geometry_msgs/msg/Transform",
        translation=recorded("geometry_msgs/msg/Vector3", **place),
        rotation=turn,
    )
    one = recorded(
        "geometry_msgs/msg/TransformStamped",
        header=header(parent),
        child_frame_id=child,
        transform=transform,
    )
    return recorded(TF, transforms=[one])


def test_a_bag_says_where_its_camera_stood(tmp_path):
    camera = ROBOT.camera
    info, told = camera.camera_info_topic, camera.pose_topic
    assert told == "camera/pose"
    before = camera_at((0.8, 0.3, 0.7))
    by_pose = bag_with(
        tmp_path / "pose",
        (told, POSE, recorded_pose("world", before.T_base_camera)),
        (told, POSE, recorded_pose("world", CAMERA.T_base_camera)),
        (info, INFO, recorded_info(CAMERA)),
        (told, POSE, recorded_pose("world", before.T_base_camera)),
    )
    found = bag_calibration(by_pose, ROBOT, camera)
    assert found.camera.same_as(CAMERA)
    assert found.base_frame == "world"
    silent = bag_with(tmp_path / "info", (info, INFO, recorded_info(CAMERA)))
    assert bag_calibration(silent, ROBOT, camera) is None
    # What the given robot description says comes last, what the one inside the bag says first.
    assert bag_calibration(silent, ROBOT, with_calibration(CALIBRATION).camera) == CALIBRATION
    assert bag_calibration(by_pose, ROBOT, with_calibration(CALIBRATION).camera) == found
    own, _ = write_demonstration(
        tmp_path / "own", 4, custom_data={"atk_robot_file": with_calibration(CALIBRATION).dump()}
    )
    assert bag_calibration(own, ROBOT, camera) == CALIBRATION
    none, _ = write_demonstration(tmp_path / "none", 4)
    assert bag_calibration(none, ROBOT, camera) is None


def test_static_tf_in_a_bag_does_as_well_where_the_base_frame_is_known(tmp_path):
    T = CAMERA.T_base_camera
    mount = pose_from_rpy([0.4, 0.0, 0.2], [0.0, 0.0, 0.5])
    bag = bag_with(
        tmp_path / "tf",
        ("camera/camera_info", INFO, recorded_info(CAMERA)),
        ("tf_static", TF, recorded_tf("mount", "camera_optical_frame", inverse(mount) @ T)),
        ("tf_static", TF, recorded_tf("panda_link0", "mount", mount)),
    )
    assert bag_calibration(bag, ROBOT, ROBOT.camera) is None  # kinematics.base_frame is empty
    kinematics = ROBOT.kinematics.model_copy(update={"base_frame": "panda_link0"})
    robot = ROBOT.model_copy(update={"kinematics": kinematics})
    found = bag_calibration(bag, robot, robot.camera)
    np.testing.assert_allclose(found.T_base_camera, T, atol=1e-9)
    assert found.base_frame == "panda_link0"


def test_a_bag_that_says_nonsense_is_named_and_an_uncalibrated_camera_says_nothing(tmp_path):
    broken = recorded_pose("world", CAMERA.T_base_camera)
    broken.pose.position.x = float("nan")
    info = ("camera/camera_info", INFO, recorded_info(CAMERA))
    bag = bag_with(tmp_path / "broken", info, ("camera/pose", POSE, broken))
    with pytest.raises(BagError, match="camera/pose holds a pose with translation"):
        bag_calibration(bag, ROBOT, ROBOT.camera)
    blind = recorded_info(CAMERA)
    blind.k[:] = 0.0
    bag = bag_with(
        tmp_path / "blind",
        ("camera/camera_info", INFO, blind),
        ("camera/pose", POSE, recorded_pose("world", CAMERA.T_base_camera)),
    )
    assert bag_calibration(bag, ROBOT, ROBOT.camera) is None


# -- a bag of a camera that was moved -----------------------------------------------------------------

DEPTH = "sensor_msgs/msg/Image"


def recorded_depth(stamp_ms: int, metres: float):
    told = header("camera_optical_frame")
    told.stamp.sec, told.stamp.nanosec = 0, stamp_ms * 10**6
    data = np.full((48, 64), metres, np.float32)
    return recorded(
        DEPTH,
        header=told,
        height=48,
        width=64,
        encoding="32FC1",
        is_bigendian=0,
        step=256,
        data=np.frombuffer(data.tobytes(), np.uint8),
    )


def test_the_depth_of_a_bag_is_that_of_the_stamp(tmp_path):
    topic = ROBOT.camera.registered_depth_topic
    assert topic == "camera/depth/image_raw"
    stamps_ms = (0, 100, 200, 210, 400)
    bag = bag_with(tmp_path / "bag", *((topic, DEPTH, recorded_depth(ms, 1 + ms)) for ms in stamps_ms))
    depth = BagDepth(bag, ROBOT.camera)

    def at(ms: int) -> float | None:
        found = depth.at(ms * 10**6)
        return None if found is None else float(found[0, 0]) - 1

    assert [at(ms) for ms in (0, 90, 100, 160, 207, 300, 360, 449, 451)] == [
        0.0, 100.0, 100.0, 200.0, 210.0, None, 400.0, 400.0, None,
    ]  # fmt: skip


def test_a_bag_of_a_moved_camera_is_seen_as_the_training_camera_would(tmp_path):
    live = camera_at((1.0, 0.2, 0.6), 0.2)
    told = (
        ("camera/pose", POSE, recorded_pose("panda_link0", live.T_base_camera)),
        ("camera/camera_info", INFO, recorded_info(live)),
    )
    flat = bag_with(tmp_path / "flat", *told)
    points = keypoint_set(CALIBRATION)
    seen = np.array([[300.0, 200.0], [350.0, 250.0]], np.float32)
    visible = np.ones(2, bool)
    viewpoint, depth = bag_viewpoint("plane", flat, points, ROBOT, ROBOT.camera)
    assert depth is None
    expected = reproject(seen.astype(float), live, CAMERA, ROBOT.work_plane.plane)
    np.testing.assert_allclose(viewpoint.see(seen, visible).uv_px, expected.uv_px, atol=1e-3)
    with pytest.raises(ViewpointError, match="has no depth images on camera/depth/image_raw"):
        bag_viewpoint("depth", flat, points, ROBOT, ROBOT.camera)
    deep = bag_with(tmp_path / "deep", *told, ("camera/depth/image_raw", DEPTH, recorded_depth(5, 0.8)))
    viewpoint, depth = bag_viewpoint("depth", deep, points, ROBOT, ROBOT.camera)
    depth_m = depth.at(5 * 10**6)
    expected = reproject(seen.astype(float), live, CAMERA, depth_m)
    np.testing.assert_allclose(viewpoint.see(seen, visible, depth_m).uv_px, expected.uv_px, atol=1e-3)
    assert bag_viewpoint("none", flat, keypoint_set(None), ROBOT, ROBOT.camera) == (None, None)
    silent = bag_with(tmp_path / "silent", told[1])
    with pytest.raises(ViewpointError, match="does not say where camera 'camera' stood"):
        bag_viewpoint("plane", silent, points, ROBOT, ROBOT.camera)
    elsewhere = bag_with(
        tmp_path / "elsewhere", ("camera/pose", POSE, recorded_pose("map", live.T_base_camera)), told[1]
    )
    with pytest.raises(ViewpointError, match="'map', that of the training camera in 'panda_link0'"):
        bag_viewpoint("plane", elsewhere, points, ROBOT, ROBOT.camera)
