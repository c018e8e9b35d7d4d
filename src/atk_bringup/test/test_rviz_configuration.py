"""RViz shows topics that exist, with display classes that RViz has."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from atk_perception.robot_description import RobotDescription

PACKAGE = Path(__file__).parents[1]

CONFIG = yaml.safe_load((PACKAGE / "rviz" / "atk.rviz").read_text())
DISPLAYS = {display["Name"]: display for display in CONFIG["Visualization Manager"]["Displays"]}
# Names in plugins_description.xml of rviz_default_plugins, jazzy branch.
DEFAULT_PLUGINS = {"Image", "Camera", "MarkerArray", "TF", "Grid"}
MESSAGE_OF_PLUGIN = {
    "Image": "sensor_msgs/Image",
    "Camera": "sensor_msgs/Image",
    "MarkerArray": "visualization_msgs/MarkerArray",
}


def documented_topics() -> dict[str, str]:
    """Topic and type of every row of the README's table of topics."""
    rows = re.findall(r"^\| `([a-z_/]+)` \| (\w+/\w+) \|", (PACKAGE / "README.md").read_text(), re.MULTILINE)
    return dict(rows)


def test_display_classes_are_those_of_rviz():
    classes = {display["Class"].split("/")[1] for display in DISPLAYS.values()}
    assert classes == DEFAULT_PLUGINS
    assert all(display["Class"].startswith("rviz_default_plugins/") for display in DISPLAYS.values())


def test_displayed_topics_are_documented_with_the_type_that_the_display_takes():
    topics = documented_topics()
    shown = {d["Topic"]["Value"]: d["Class"].split("/")[1] for d in DISPLAYS.values() if "Topic" in d}
    expected = {"/keypoints/overlay", "/camera/image_raw", "/keypoints/markers", "/policy/joints_image"}
    assert set(shown) == expected
    for topic, plugin in shown.items():
        assert topics[topic.lstrip("/")] == MESSAGE_OF_PLUGIN[plugin]


def test_images_are_heard_whatever_the_camera_offers():
    """A reliable subscription hears nothing from a best-effort driver."""
    images = [d for d in DISPLAYS.values() if d["Class"].endswith(("/Image", "/Camera"))]
    assert [d["Topic"]["Reliability Policy"] for d in images] == ["Best Effort"] * 3


def test_markers_are_drawn_over_the_camera_image_and_nothing_else_is():
    camera = DISPLAYS["Camera with markers"]
    assert camera["Image Rendering"] == "background"
    shown = {name for name, visible in camera["Visibility"].items() if visible and name != "Value"}
    assert shown == {"Keypoints"}
    assert set(camera["Visibility"]) - {"Value"} == set(DISPLAYS) - {"Camera with markers"}


def test_the_fixed_frame_is_the_camera_of_the_simulated_robot():
    """Launch replaces it by the camera frame of another robot."""
    frame = CONFIG["Visualization Manager"]["Global Options"]["Fixed Frame"]
    assert RobotDescription.load(PACKAGE / "config" / "robots" / "sim_panda.yaml").camera.frame_id == frame


def test_every_picture_has_its_place_in_the_window():
    """The dock names inside Qt's saved state are UTF-16: a renamed display would lose its place."""
    state = bytes.fromhex(CONFIG["Window Geometry"]["QMainWindow State"])
    for name in ("Displays", "Tracker overlay", "Camera with markers", "Joints"):
        assert name.encode("utf-16-be") in state
        assert CONFIG["Window Geometry"][name] == {"collapsed": False}
