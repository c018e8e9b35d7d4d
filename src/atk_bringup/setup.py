"""Launch files, parameters and RViz configuration."""

from glob import glob

from setuptools import find_packages, setup

PACKAGE = "atk_bringup"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={PACKAGE: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        (f"share/{PACKAGE}/launch", glob("launch/*.launch.py")),
        (f"share/{PACKAGE}/config", glob("config/*.yaml") + glob("config/*.xml")),
        (f"share/{PACKAGE}/config/robots", glob("config/robots/*.yaml")),
        (f"share/{PACKAGE}/config/robots/models", glob("config/robots/models/*.xml")),
        (f"share/{PACKAGE}/rviz", glob("rviz/*.rviz")),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="ATK for ROS 2 maintainers",
    maintainer_email="maintainers@atk-ros2.dev",
    description="Launch files, parameters and RViz configuration.",
    license="Apache-2.0",
    entry_points={"console_scripts": []},
)
