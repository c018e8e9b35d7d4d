"""From keypoints to joint commands, and the offline selection of the keypoints."""

from glob import glob

from setuptools import find_packages, setup

PACKAGE = "atk_policy"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={PACKAGE: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        (f"share/{PACKAGE}/config", glob("config/*.yaml")),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="ATK for ROS 2 maintainers",
    maintainer_email="maintainers@atk-ros2.dev",
    description="From keypoints to joint commands, and the offline selection of the keypoints.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            f"select = {PACKAGE}.select_command:main",
            f"export_policy = {PACKAGE}.export_onnx:main",
            f"bench_policy = {PACKAGE}.bench_policy:main",
            f"evaluate_offline = {PACKAGE}.offline_evaluation:main",
            f"joint_monitor_node = {PACKAGE}.joint_monitor_node:main",
            f"selection_node = {PACKAGE}.selection_node:main",
            f"policy_node = {PACKAGE}.policy_node:main",
            f"moveit_node = {PACKAGE}.moveit_node:main",
        ]
    },
)
