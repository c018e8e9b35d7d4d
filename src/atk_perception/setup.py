"""From pixels to keypoints."""

from glob import glob

from setuptools import find_packages, setup

PACKAGE = "atk_perception"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={
        PACKAGE: ["py.typed", "fastdds_udp_localhost.xml", "learned/*.safetensors", "learned/MODEL_CARD.md"]
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        (f"share/{PACKAGE}/config", glob("config/*.yaml")),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="ATK for ROS 2 maintainers",
    maintainer_email="maintainers@atk-ros2.dev",
    description="From pixels to keypoints.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "bench_perception = atk_perception.bench_perception:main",
            "calibrate_camera = atk_perception.calibrate_node:calibrate_command",
            "calibrate_node = atk_perception.calibrate_node:main",
            "camera_node = atk_perception.camera_node:main",
            "get_weights = atk_perception.get_weights:main",
            "lerobot_export = atk_perception.lerobot_command:export_main",
            "lerobot_import = atk_perception.lerobot_command:import_main",
            "play = atk_perception.play_node:play_command",
            "play_node = atk_perception.play_node:main",
            "record = atk_perception.record_node:record_command",
            "record_node = atk_perception.record_node:main",
            "recover_bag = atk_perception.recover_command:main",
            "tracker_node = atk_perception.tracker_node:main",
        ]
    },
)
