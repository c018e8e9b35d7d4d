"""When a node can be asked: a service that is ready may still lose its first answers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from rcl_interfaces.srv import GetParameters
from rclpy.node import Node

REPEAT_S = 3.0  # after which a question without an answer is asked again


def answers_reach(node: Node, asked: str) -> Callable[[], bool]:
    """A condition to wait for, while `node` is spun: answers of the node named `asked` reach every client made before.

    Besides `service_is_ready`: services may come after the parameters of a node. A node may hear a request before it knows where to answer, and Fast DDS then drops the
    answer (rmw_fastrtps issue 842). It gets to know the clients of another in their order: once it answers a new one, whose
    question may be asked twice, it knows those before. Action clients too; with a namespace in `asked` where it has one.
    """
    client = node.create_client(GetParameters, f"{asked}/get_parameters")
    answers: list[Any] = []
    again_at = -math.inf

    def reached() -> bool:
        nonlocal again_at
        if any(answer.done() for answer in answers):
            if client in node.clients:
                node.destroy_client(client)
            return True
        if client.service_is_ready() and time.monotonic() > again_at:
            again_at = time.monotonic() + REPEAT_S
            answers.append(client.call_async(GetParameters.Request()))
        return False

    return reached
