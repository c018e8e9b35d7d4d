"""How a node's messages travel to other processes (Fast DDS)."""

from __future__ import annotations

import os
from pathlib import Path

PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"
IMAGES_PROFILE = "fastdds_images.xml"  # in atk_bringup: shared memory of an image's size
UDP_LOCALHOST_PROFILE = Path(__file__).with_name("fastdds_udp_localhost.xml")


def leave_shared_memory() -> None:
    """Have this process, which sends small messages alone, talk by UDP alone; before rclpy is initialised.

    When a process that others reach through shared memory is killed, Fast DDS finds out by waiting: whatever the others
    send meanwhile, to anyone, comes a third of a second late (in 7 of 85 kills; none of 57 by UDP).

    With ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST the middleware adds shared memory to every profile; so a profile takes over
    what that setting does. A profile that somebody chose and ROS_STATIC_PEERS stay as they are.
    """
    environment = os.environ
    if Path(environment.get(PROFILE_VARIABLE) or IMAGES_PROFILE).name != IMAGES_PROFILE:
        return
    is_local = environment.get("ROS_LOCALHOST_ONLY") == "1" or (
        environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").upper() == "LOCALHOST"
    )
    if not is_local:
        environment.pop(PROFILE_VARIABLE, None)
        environment.setdefault("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
    elif not environment.get("ROS_STATIC_PEERS"):
        environment[PROFILE_VARIABLE] = str(UDP_LOCALHOST_PROFILE)
        environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "SYSTEM_DEFAULT"
        environment.pop("ROS_LOCALHOST_ONLY", None)
