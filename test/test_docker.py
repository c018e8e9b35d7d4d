"""What can be said of the Docker image without an engine: files, targets, packages and commands that must agree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from atk_sim.graph import executable_path

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
SERVICES = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
MANIFESTS = {
    path.parent.name: ElementTree.parse(path).getroot() for path in (ROOT / "src").glob("*/package.xml")
}
ROSDEP_KEYS = yaml.safe_load((DOCKER / "rosdep_keys.txt").read_text())
REQUIRED = {
    re.split(r"[=<>! ]", line)[0].lower().replace("-", "_")
    for name in ("base.txt", "no-deps.txt")
    for line in (ROOT / "requirements" / name).read_text().splitlines()
    if line and not line.startswith("#")
}
# Where the name that is imported is not that of the rosdep key.
KEY_OF_IMPORT = {
    "cv2": "python3-opencv",
    "matplotlib": "python3-matplotlib",
    "moveit": "moveit_py",
    "numpy": "python3-numpy",
    "pydantic_core": "pydantic",
    "tqdm": "python3-tqdm",
    "yaml": "python3-yaml",
}


# Imported where they are installed, and only there; without them the rest works.
OPTIONAL = {
    "foxglove_msgs",
    "lerobot",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "openai",
    "transformers",
    "wandb",
}


def dependencies(package: str) -> set[str]:
    return {element.text for element in MANIFESTS[package] if element.tag.endswith("depend")}


def stages() -> dict[str, str]:
    """Instructions of every build stage, by name."""
    parts = re.split(r"^FROM \S+ AS (\S+)\n", DOCKERFILE, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("package", sorted(MANIFESTS))
def test_every_dependency_is_ours_or_a_checked_rosdep_key(package):
    assert dependencies(package) - set(MANIFESTS) - set(ROSDEP_KEYS) == set()


def test_every_checked_rosdep_key_is_used():
    assert set(ROSDEP_KEYS) == set().union(*map(dependencies, MANIFESTS)) - set(MANIFESTS)


@pytest.mark.parametrize("package", sorted(set(MANIFESTS) - {"atk_interfaces"}))
def test_every_import_is_declared(package):
    """In package.xml, or, where Ubuntu has no package of it, in requirements/."""
    imported: set[str] = set()
    files = (ROOT / "src" / package / package, ROOT / "src" / package / "launch")
    for path in (path for folder in files for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.split(".")[0])
    imported -= {package, *sys.stdlib_module_names}
    undeclared = (
        {KEY_OF_IMPORT.get(name, name) for name in imported} - dependencies(package) - REQUIRED - OPTIONAL
    )
    assert undeclared == set()


def test_what_is_copied_into_the_image_exists_and_is_not_ignored():
    rules = [
        line
        for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
        if line[:1] not in ("", "#")
    ]
    kept = [rule[1:] for rule in rules if rule.startswith("!")]
    copies = re.findall(r"^COPY ((?!--from)(?:--\S+ )*)(.+)$", DOCKERFILE, re.MULTILINE)
    sources = [source for _, arguments in copies for source in arguments.split()[:-1]]
    assert set(sources) == {
        "src",
        "requirements/base.txt",
        "requirements/no-deps.txt",
        "requirements/dev.txt",
        "docker/entrypoint.sh",
        "docker/moveit_test",
    }
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(source == rule or source.startswith(f"{rule}/") for rule in kept), source
        ignored = [rule for rule in rules if rule.startswith("**/") and fnmatch(source, rule[3:])]
        assert not ignored, source


def test_every_stage_that_runs_ends_as_a_user_without_rights():
    for target in ("stack", "robot", "moveit-test"):
        assert re.findall(r"^USER (\S+)", stages()[target], re.MULTILINE) == ["atk"]


def test_numpy_and_opencv_stay_those_of_ubuntu():
    """ROS 2's own extensions and cv_bridge are built against NumPy 1.x and that OpenCV."""
    install = stages()["dependencies"]
    assert "grep -vE '^(numpy|opencv-python|torch)=='" in install
    assert "-r requirements/system-ros.txt 'numpy<2'" in install
    assert {"numpy", "opencv_python", "torch"} <= REQUIRED


def test_the_entrypoint_is_valid_bash():
    subprocess.run(["bash", "-n", str(DOCKER / "entrypoint.sh")], check=True)
    assert (DOCKER / "entrypoint.sh").stat().st_mode & 0o111


def test_moveit_is_where_its_tests_run_and_nowhere_that_it_is_not_needed():
    moveit = re.findall(r"ros-jazzy-moveit-\S+", stages()["robot-dependencies"])
    # The bindings bring neither planners nor solvers nor the way to controllers.
    assert {"py", "configs-utils", "planners-ompl", "kinematics", "simple-controller-manager"} <= {
        package.removeprefix("ros-jazzy-moveit-") for package in moveit
    }
    skipped = re.search(r"--skip-keys '([^']+)'", stages()["dependencies"])
    assert skipped
    assert {"moveit_py", "moveit_configs_utils"} <= set(skipped[1].split())


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_starts_something_that_exists(name):
    service = SERVICES[name]
    context = (DOCKER / service["build"]["context"]).resolve()
    assert (context / service["build"]["dockerfile"]).samefile(DOCKER / "Dockerfile")
    assert service["build"]["target"] in stages()
    assert service["image"] == f"atk-ros2:{service['build']['target']}"
    assert (service["network_mode"], service["ipc"]) == ("host", "host")
    if name == "moveit-test":
        tests = service["command"].split()[-1]
        assert re.search(rf"^COPY docker/(\S+) {Path(tests).name}$", stages()[name], re.MULTILINE)
        assert list((DOCKER / Path(tests).name).glob("test_*.py"))
        return
    tool, verb, package, what, *_ = service["command"].split()
    assert tool == "ros2"
    if verb == "launch":
        assert (ROOT / "src" / package / "launch" / what).is_file()
    elif package in MANIFESTS:
        assert executable_path(package, what).is_file()
    else:
        assert (verb, package) == ("run", "rviz2")
