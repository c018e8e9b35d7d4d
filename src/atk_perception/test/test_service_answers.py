"""Before a node is there nothing reaches; afterwards its first answer does, and the question leaves nothing behind."""

from __future__ import annotations

import os
import time

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import Trigger

from atk_perception.service_answers import answers_reach

pytestmark = pytest.mark.system

DOMAIN = 13 + os.getpid() % 60


def test_answers_reach_once_the_other_node_is_there():
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    executor = SingleThreadedExecutor(context=context)
    node = rclpy.create_node("asking", context=context)
    client = node.create_client(Trigger, "asked/go")
    executor.add_node(node)
    before = len(list(node.clients))

    def spin_until(condition, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not condition() and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.02)
        return bool(condition())

    try:
        assert not spin_until(answers_reach(node, "nobody"), 0.5)
        reached = answers_reach(node, "asked")
        asked = rclpy.create_node("asked", context=context)
        asked.create_service(Trigger, "asked/go", lambda _, answer: Trigger.Response(success=True))
        executor.add_node(asked)
        assert spin_until(reached, 30.0)
        assert len(list(node.clients)) == before + 1, "the one that asks nobody"
        answer = client.call_async(Trigger.Request())
        assert spin_until(answer.done, 30.0)
        assert answer.result().success
    finally:
        executor.shutdown()
        context.try_shutdown()
