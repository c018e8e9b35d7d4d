"""An independent witness: what was on the wire and when, one JSON line per message.

A process of its own that shares no code with the policy. Times are those at which DDS says that the
publisher sent the message [ns of the system's clock], not when it came to be read here; beside them stands
when it came to this process, for publishers whose clock was set. Of a trajectory the first point is noted:
what a position controller would have been told at that moment.
"""

from __future__ import annotations

import json
import math
from typing import Any

from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory

from atk_interfaces.msg import PolicyStatus
from atk_perception.managed_node import OK, ManagedNode, run_node

RELIABLE = QoSProfile(depth=500, reliability=ReliabilityPolicy.RELIABLE)


class WireRecorderNode(ManagedNode):
    """Writes commands, policy states, joint states and injected faults."""

    def __init__(self) -> None:
        super().__init__("wire_recorder")
        self.declare("output", "", "file that the lines are written to", read_only=True)
        self.declare("command_topic", "forward_position_controller/commands", "the arm's", read_only=True)
        self.declare(
            "trajectory_topic",
            "joint_trajectory_controller/joint_trajectory",
            "the arm's, where it takes trajectories",
            read_only=True,
        )
        self.declare("joint_states_topic", "robot/joint_states", "as the robot itself says", read_only=True)

    def configure(self) -> None:
        """Open the file and listen."""
        path = self.parameter("output")
        if not path:
            raise ValueError("parameter 'output' is empty; give the file to write")
        self._file = open(path, "w", buffering=1)  # noqa: SIM115 - lives as long as the node; line by line
        for kind, topic, name, content in (
            (Float64MultiArray, self.parameter("command_topic"), "command", lambda m: list(m.data)),
            (
                JointTrajectory,
                self.parameter("trajectory_topic"),
                "command",
                lambda m: list(m.points[0].positions) if m.points else [],
            ),
            (JointState, self.parameter("joint_states_topic"), "joints", lambda m: list(m.position)),
            (PolicyStatus, "policy/status", "policy", lambda m: [int(m.state), m.hold_cause]),
            (String, "faults/active", "fault", lambda m: m.data),
        ):
            self._listen(kind, topic, name, content)
        self.set_diagnostic(OK, f"writing {path}")

    def _listen(self, kind: type, topic: str, name: str, content: Any) -> None:
        def write(message: Any, info: dict[str, Any]) -> None:
            values = content(message)
            finite = not isinstance(values, list) or all(
                math.isfinite(v) for v in values if isinstance(v, float)
            )
            # NaN is no JSON; what is not finite is told apart instead of written.
            times = {"t_ns": info["source_timestamp"], "received_ns": info["received_timestamp"]}
            line = {**times, "what": name, "finite": finite}
            self._file.write(json.dumps({**line, "value": values if finite else None}) + "\n")

        self.create_subscription(kind, topic, write, RELIABLE)

    def cleanup(self) -> None:
        """Close the file."""
        self._file.close()


def main() -> None:
    """Console entry."""
    run_node(WireRecorderNode, shared_memory=False)
