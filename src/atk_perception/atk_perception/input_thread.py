"""Subscriptions with a thread of their own, beside the executor.

rclpy's executors ask every entity of a node anew before each wait: about a millisecond for a managed node with its
parameter and lifecycle services. At 200 joint states a second that is a fifth of a core, and every image waits behind
them. The few subscriptions through which data streams are waited for here, by themselves; everything else stays with
the executor.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

# How long a thread that is to end may still wait.
WAKE_NS = 100_000_000
# Messages taken from one subscription before the others have their turn.
TURN = 32
# How often it is looked for publishers that cannot be heard.
CHECK_S = 2.0


class InputThread(CallbackGroup):
    """A callback group whose subscriptions are served by one thread, in the order in which messages are taken.

    `subscribe`, then `start`; `close` destroys the subscriptions. Callbacks must not wait. One that raises ends the
    process: a node that no longer hears its robot must not look alive.
    """

    def __init__(self, node: Node, name: str) -> None:
        super().__init__()
        self._node = node
        self._subscriptions: list[Subscription] = []
        self._unheard: set[str] = set()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    # -- what an executor asks of a callback group: it is to leave these alone ----------------------

    def can_execute(self, entity: Any) -> bool:
        """Never by an executor."""
        return False

    def beginning_execution(self, entity: Any) -> bool:
        """Never by an executor."""
        return False

    def ending_execution(self, entity: Any) -> None:
        """Nothing to do."""

    # ----------------------------------------------------------------------------------------------

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """Those made by `subscribe`."""
        return tuple(self._subscriptions)

    def subscribe(
        self, kind: type, topic: str, callback: Callable[[Any], None], qos: QoSProfile | int, **options: Any
    ) -> None:
        """As `Node.create_subscription`.

        Without its events: they share a wait condition with the messages, and the executor would wake for each. What
        they are good for, the warning of publishers with another quality of service, is given here.
        """
        events = SubscriptionEventCallbacks(use_default_callbacks=False)
        self._subscriptions.append(
            self._node.create_subscription(
                kind, topic, callback, qos, callback_group=self, event_callbacks=events, **options
            )
        )

    def start(self) -> None:
        """Serve the subscriptions."""
        self._thread.start()

    def close(self) -> None:
        """End, after the callback at hand, and destroy the subscriptions."""
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join()
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def _run(self) -> None:
        try:
            with contextlib.ExitStack() as held:
                for subscription in self._subscriptions:
                    held.enter_context(subscription.handle)
                self._serve()
        except Exception as error:
            self._node.get_logger().fatal(f"cannot handle a message: {error!r}")
            os.kill(os.getpid(), signal.SIGTERM)
            raise

    def _serve(self) -> None:
        wait_set = _rclpy.WaitSet(len(self._subscriptions), 0, 0, 0, 0, 0, self._node.context.handle)
        check_at = time.monotonic() + CHECK_S
        while not self._ending.is_set():
            if time.monotonic() > check_at:
                self._warn_of_unheard()
                check_at = time.monotonic() + CHECK_S
            wait_set.clear_entities()
            for subscription in self._subscriptions:
                wait_set.add_subscription(subscription.handle)
            wait_set.wait(WAKE_NS)
            ready = wait_set.get_ready_entities("subscription")
            for subscription in self._subscriptions:
                if subscription.handle.pointer in ready:
                    self._take(subscription)

    def _take(self, subscription: Any) -> None:
        for _ in range(TURN):
            taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
            if taken is None or self._ending.is_set():
                return
            subscription.callback(taken[0])

    def _warn_of_unheard(self) -> None:
        """Name topics with publishers of which none is heard; at the second look, since discovery takes a moment."""
        before, self._unheard = self._unheard, set()
        for subscription in self._subscriptions:
            topic = subscription.topic_name
            if subscription.get_publisher_count() == 0 and self._node.count_publishers(topic):
                self._unheard.add(topic)
                if topic in before:
                    self._node.get_logger().warning(
                        f"nothing is heard on {topic}: its publishers offer another quality of service than is asked "
                        "for; compare them with 'ros2 topic info -v'",
                        throttle_duration_sec=30.0,
                    )
