"""What can be said of launch files and parameters without the launch packages: names that must agree."""

from __future__ import annotations

import ast
from functools import cache
from importlib import import_module
from inspect import getsource
from pathlib import Path
from xml.etree import ElementTree

import pytest
import rclpy
import yaml
from ament_index_python.packages import get_package_prefix
from rclpy.lifecycle import LifecycleNode

from atk_perception import dds_transport
from atk_perception.managed_node import ManagedNode
from atk_perception.robot_description import RobotDescription
from atk_policy.moveit_node import TOPIC_SINKS

pytestmark = pytest.mark.system

PACKAGE = Path(__file__).parents[1]

SOURCES = [*sorted((PACKAGE / "launch").glob("*.launch.py")), PACKAGE / "atk_bringup" / "launching.py"]


def started_nodes() -> dict[tuple[str, str, str], set[str]]:
    """(package, executable, name) of every node that is launched, and the parameters it is given."""
    found: dict[tuple[str, str, str], set[str]] = {}
    for source in SOURCES:
        for call in ast.walk(ast.parse(source.read_text())):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "managed_node":
                package, executable, name = (ast.literal_eval(argument) for argument in call.args[:3])
                keys = {key.value for key in call.args[3].keys if isinstance(key, ast.Constant)}
                found.setdefault((package, executable, name), set()).update(keys)
    return found


NODES = started_nodes()
NODE_NAMES = [name for _, _, name in NODES]


@cache
def node_class_of(package: str, executable: str) -> type[ManagedNode]:
    module = import_module(f"{package}.{executable}")
    return next(
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, ManagedNode) and value.__module__ == module.__name__
    )


@cache
def declared(package: str, executable: str) -> tuple[str, frozenset[str]]:
    """Default name and parameters of a node, as the node itself declares them."""
    rclpy.init()
    try:
        node = node_class_of(package, executable)()
        declaration = node.get_name(), frozenset(node.list_parameters([], 0).names)
        node.destroy_node()
        return declaration
    finally:
        rclpy.shutdown()


def test_the_graph_is_made_of_the_documented_nodes():
    names = [
        "camera",
        "joint_monitor",
        "moveit",
        "player",
        "policy",
        "recorder",
        "selection",
        "sim",
        "tracker",
    ]
    assert sorted(NODE_NAMES) == names


@pytest.mark.parametrize("node", NODES, ids=NODE_NAMES)
def test_every_launched_node_is_an_executable_of_the_workspace(node):
    package, executable, _ = node
    assert (Path(get_package_prefix(package)) / "lib" / package / executable).is_file()


@pytest.mark.parametrize("node", NODES, ids=NODE_NAMES)
def test_launch_gives_nodes_their_own_names_and_only_declared_parameters(node):
    package, executable, name = node
    default_name, parameters = declared(package, executable)
    assert default_name == name
    assert NODES[node] <= parameters


@pytest.mark.parametrize("node", NODES, ids=NODE_NAMES)
def test_no_node_puts_something_of_its_own_where_rclpy_keeps_its_lists(node):
    """A node whose `_services` or `_timers` is another list no longer serves those that it had before."""
    package, executable, _ = node
    rclpy.init()
    plain = LifecycleNode("plain")
    kept = set(vars(plain))
    plain.destroy_node()
    rclpy.shutdown()
    tree = ast.parse(getsource(node_class_of(package, executable)))
    stored = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    assert "_timers" in kept
    assert not stored & kept


def test_the_parameter_file_names_only_declared_parameters():
    sections = yaml.safe_load((PACKAGE / "config" / "atk.params.yaml").read_text())
    by_name = {name: (package, executable) for package, executable, name in NODES}
    for section, content in sections.items():
        name = section.removeprefix("/**/")
        assert name in by_name, f"section {section} is no node"
        _, parameters = declared(*by_name[name])
        assert set(content["ros__parameters"]) <= parameters, section
        # Deployment is for launch arguments: a value in both places would be ambiguous.
        deployed = set().union(*(NODES[node] for node in NODES if node[2] == name))
        assert not set(content["ros__parameters"]) & deployed, section


def test_launch_names_the_profile_that_the_policy_node_leaves():
    names = ("PROFILE_VARIABLE", "IMAGES_PROFILE")
    (pair,) = (
        ast.literal_eval(statement.value)
        for statement in ast.parse(SOURCES[-1].read_text()).body
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == f"({', '.join(names)})"
    )
    assert pair == tuple(getattr(dds_transport, name) for name in names)


def test_launch_knows_through_which_sinks_the_moveit_node_can_move_the_arm():
    """It reads the robot description without the packages that validate it."""
    (sinks,) = (
        ast.literal_eval(statement.value)
        for statement in ast.parse(SOURCES[-1].read_text()).body
        if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == "HOMING_SINKS"
    )
    assert sinks == TOPIC_SINKS


@pytest.mark.parametrize("path", sorted((PACKAGE / "config" / "robots").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_robot_descriptions_are_valid(path):
    assert RobotDescription.load(path).name == path.stem


@pytest.mark.parametrize("folder", ["launch", "config", "config/robots", "config/robots/models", "rviz"])
def test_every_file_is_installed(folder):
    installed = Path(get_package_prefix("atk_bringup")) / "share" / "atk_bringup" / folder
    files = [path for path in (PACKAGE / folder).iterdir() if path.is_file()]
    assert files
    for path in files:
        assert (installed / path.name).read_bytes() == path.read_bytes(), path


def test_the_fast_dds_profile_has_room_for_images():
    """A 640x480 rgb8 image must fit one shared-memory message, and several the segment."""
    root = ElementTree.parse(PACKAGE / "config" / "fastdds_images.xml").getroot()
    sizes = {
        element.tag.split("}")[1]: int(element.text)
        for element in root.iter()
        if element.tag.endswith(("segment_size", "maxMessageSize"))
    }
    image_bytes = 640 * 480 * 3
    assert sizes["maxMessageSize"] > image_bytes
    assert sizes["segment_size"] > 10 * image_bytes
