"""A simulated robot behind the real robot's topics."""

from glob import glob

from setuptools import find_packages, setup

PACKAGE = "atk_sim"

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
    description="A simulated robot behind the real robot's topics.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "sim_robot_node = atk_sim.sim_robot_node:main",
            "bench_transfer = atk_sim.bench_transfer:main",
            "benchmark = atk_sim.benchmark:main",
            "benchmark_check = atk_sim.benchmark_check:main",
            "benchmark_report = atk_sim.benchmark_report:main",
            "demo = atk_sim.demo:main",
            "expert = atk_sim.expert_benchmark:main",
            "fault_campaign = atk_sim.fault_campaign:main",
            "fault_injector_node = atk_sim.fault_injector_node:main",
            "wire_recorder_node = atk_sim.wire_recorder_node:main",
            "latency_benchmark = atk_sim.latency_benchmark_node:main",
        ]
    },
)
