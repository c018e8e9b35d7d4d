"""Every fault that a robot may meet, injected while the arm moves; an independent recorder says what came of it.

The simulator stands in for a robot: real time, the system's clock, drivers behind a relay that can
lie. For each fault and seed the policy is started, the arm moves, the fault strikes. Then the file
of a recorder process of its own is read: was any limit broken on the wire, did anything move after
the deadline for the hold, was the cause named. Recording faults ask what became of written data.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from std_msgs.msg import String
from tqdm import tqdm

from atk_interfaces.msg import PolicyStatus, RecordStatus
from atk_interfaces.srv import RecordEpisode
from atk_perception.frames import BagError, bag_messages
from atk_perception.record_node import STATUS_QOS
from atk_perception.robot_description import RobotDescription
from atk_sim import demo
from atk_sim.closed_loop_node import RELIABLE, ClosedLoopClient
from atk_sim.graph import GraphError, NodeGraph, executable_path, robot_file
from atk_sim.wire_check import Wire, last_motion_s, limit_violations, velocity_at

FIRST_SEED = 20_000
MOVING_RAD_S = 0.15
OBSERVE_S = 1.6
# A process that is killed may leave shared memory locked: who records what the others do then must not depend on it.
NO_SHARED_MEMORY = {"FASTRTPS_DEFAULT_PROFILES_FILE": "", "FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}
RESUME_S = 1.2
ON_DISK_S = 0.5


class Outcome(Enum):
    """What must come of a fault."""

    HOLD = "hold"  # while it lasts
    RESUME = "resume"  # a hold with a name, and on it goes
    GO_ON = "go on"  # it is none
    REFUSE = "refuse"  # the node does not come up
    KEEP = "keep"  # recorded data survive


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: as the injector knows it, or as this module does it.
        outcome: what must come of it.
        causes: names of which one must be given.
        detect_s: how long it may take until it can be known: the deadline of the input it spoils.
        act: what to do instead of telling the injector.
        own_graph: it leaves a graph behind that nobody can use.
        simulated: the graph runs on a simulated clock.
    """

    name: str
    outcome: Outcome
    causes: tuple[str, ...] = ()
    detect_s: float = 0.0
    act: Callable[[Stage], None] | None = None
    own_graph: bool = False
    simulated: bool = False


@dataclass
class Result:
    """What came of one fault with one seed; empty lists and strings are good."""

    fault: str
    seed: int
    limit_violations: list[str] = field(default_factory=list)
    motion_after_deadline_s: float | None = None  # how long after it the arm was still commanded to move
    stop_s: float | None = None  # from the fault to the last motion
    causes: list[str] = field(default_factory=list)
    unnamed: str = ""
    wrong: str = ""
    records_lost: int = 0


class Stage:
    """A graph of processes with the arm in motion.

    Args:
        run_folder: the policy.
        robot_path: robot description.
        logs: folder of this graph's logs and of the recorder's file.
        domain_id: DDS domain.
        simulated: on a simulated clock, not the system's.
    """

    def __init__(
        self, run_folder: Path, robot_path: Path, logs: Path, domain_id: int, *, simulated: bool
    ) -> None:
        self.robot = RobotDescription.load(robot_path)
        self.nodes = NodeGraph(logs, domain_id)
        self.wire_path = logs / "wire.jsonl"
        self._active: list[str] = []
        topics, camera = self.robot.topics, self.robot.camera
        clock = {"use_sim_time": simulated}
        sim = demo._sim_parameters(argparse.Namespace(task="sushi"), robot_path)
        sim |= {"lockstep": False, "system_clock": not simulated, "real_time_factor": 1.0}
        through = {
            camera.image_topic: f"robot/{camera.image_topic}",
            topics.joint_states: f"robot/{topics.joint_states}",
            topics.command: f"robot/{topics.command}",
            "/clock": "robot/clock",
        }
        reliable = {f"qos_overrides./{camera.image_topic}.subscription.reliability": "reliable"}
        run = {"run_folder": str(run_folder), **clock}
        try:
            self.nodes.start(
                "atk_sim", "wire_recorder_node", {"output": str(self.wire_path)}, environment=NO_SHARED_MEMORY
            )
            self.nodes.start("atk_sim", "fault_injector_node")
            self.nodes.start("atk_sim", "sim_robot_node", sim, remappings=through)
            self.nodes.start(
                "atk_perception",
                "tracker_node",
                {**run, **reliable},
                remappings={"keypoints": "tracker/keypoints"},
            )
            self.nodes.start("atk_policy", "policy_node", {**run, "robot": str(robot_path)})
            self.client = ClosedLoopClient(self.nodes)
        except BaseException:
            self.nodes.close()
            raise
        self._set = self.client.node.create_publisher(String, "faults/set", RELIABLE)
        self.client.node.create_subscription(
            String, "faults/active", lambda m: self._active.append(m.data), RELIABLE
        )
        self.client.wait_for("the fault injector", lambda: self._set.get_subscription_count() > 0, 30.0)

    def close(self) -> None:
        """End every process."""
        self.client.close()
        self.nodes.close()

    # -- what is done to it ------------------------------------------------------------------------

    def inject(self, name: str) -> None:
        """Have the injector act, and wait for its confirmation."""
        self._active.clear()
        self._set.publish(String(data=name))
        self.client.wait_for(f"the fault '{name}'", lambda: name in self._active, 10.0)

    def signal(self, label: str, number: int) -> None:
        """Send a signal to a node's process."""
        os.kill(self.nodes.pid(label), number)

    def change_state(self, node: str, transition: int) -> None:
        """Ask a managed node for a transition, without waiting for the answer."""
        client = self.client.node.create_client(ChangeState, f"{node}/change_state")
        self.client.wait_for(f"{node}/change_state", client.service_is_ready, 10.0)
        client.call_async(ChangeState.Request(transition=Transition(id=transition)))

    # -- motion ------------------------------------------------------------------------------------

    def move(self, seed: int) -> None:
        """Start an episode and wait until the arm is well in motion."""
        self.client.stop_policy()
        self.client.reset("sushi", "RP", seed, "topics")
        self.client.start_policy()
        self.client.wait_for("motion", self._is_moving, 30.0)
        # Not always in the same phase of the motion.
        time.sleep(float(np.random.default_rng(seed).uniform(0.1, 0.8)))

    def _is_moving(self) -> bool:
        recent = [s for s in self.client.policy_statuses() if s.state == PolicyStatus.RUNNING][-6:]
        if len(recent) < 6:
            return False
        steps = np.abs(np.diff([s.command[:-1] for s in recent], axis=0)).max(axis=1)
        return bool((steps * self.robot.control_rate_hz > MOVING_RAD_S).all())


def _kill(label: str) -> Callable[[Stage], None]:
    return lambda stage: stage.signal(label, signal.SIGKILL)


def _pause_policy(stage: Stage) -> None:
    stage.signal("policy_node", signal.SIGSTOP)
    time.sleep(0.5)
    stage.signal("policy_node", signal.SIGCONT)


KEYPOINTS_S, IMAGE_S, JOINTS_S = 0.1, 0.2, 0.1  # the deadlines of sim_panda.yaml
# A joint may stand still off its setpoint for a second; until then the setpoint may have to get that far off.
FOLLOW_S = 1.6
NOT_FOLLOWING = ("not_following", "tracking_gap")
STALE = ("keypoints_stale", "joint_state_stale")
FAULTS = (
    # Who dies or hangs.
    Fault("kill_tracker", Outcome.HOLD, STALE, KEYPOINTS_S, _kill("tracker_node"), own_graph=True),
    Fault("kill_robot", Outcome.HOLD, STALE, KEYPOINTS_S, _kill("sim_robot_node"), own_graph=True),
    Fault("kill_drivers", Outcome.HOLD, STALE, KEYPOINTS_S, _kill("fault_injector_node"), own_graph=True),
    Fault("kill_policy", Outcome.HOLD, ("policy_node ended",), 0.0, _kill("policy_node"), own_graph=True),
    Fault(
        "hang_tracker",
        Outcome.HOLD,
        STALE,
        KEYPOINTS_S,
        lambda stage: stage.signal("tracker_node", signal.SIGSTOP),
        own_graph=True,
    ),
    Fault("pause_policy", Outcome.RESUME, act=_pause_policy),
    # Who asks.
    Fault("stop_service", Outcome.HOLD, ("STOPPED",), 0.0, lambda stage: stage.client.stop_policy()),
    Fault(
        "ctrl_c_policy",
        Outcome.HOLD,
        ("STOPPED",),
        0.0,
        lambda stage: stage.signal("policy_node", signal.SIGINT),
        own_graph=True,
    ),
    Fault(
        "terminate_policy",
        Outcome.HOLD,
        ("STOPPED",),
        0.0,
        lambda stage: stage.signal("policy_node", signal.SIGTERM),
        own_graph=True,
    ),
    Fault(
        "deactivate_policy",
        Outcome.HOLD,
        ("STOPPED",),
        0.0,
        lambda stage: stage.change_state("policy", Transition.TRANSITION_DEACTIVATE),
        own_graph=True,
    ),
    Fault(
        "deactivate_tracker",
        Outcome.HOLD,
        STALE,
        KEYPOINTS_S,
        lambda stage: stage.change_state("tracker", Transition.TRANSITION_DEACTIVATE),
        own_graph=True,
    ),
    Fault("reset_tracker", Outcome.RESUME, act=lambda stage: stage.client.reset_tracker()),
    # The camera.
    Fault("camera_silent", Outcome.HOLD, STALE, KEYPOINTS_S),
    Fault("camera_frozen", Outcome.HOLD, ("image_frozen",), IMAGE_S + 0.1),
    Fault("images_late", Outcome.HOLD, (*STALE, "image_stale"), KEYPOINTS_S),
    Fault("images_dropped", Outcome.RESUME, (*STALE, "image_stale")),
    Fault("images_out_of_order", Outcome.RESUME),
    Fault("image_black", Outcome.HOLD, ("too_few_keypoints", "tracker_lost"), 0.1),
    Fault("image_noise", Outcome.HOLD, ("too_few_keypoints", "tracker_lost"), 0.1),
    Fault("image_other_size", Outcome.HOLD, ("tracker_transfer_failed",), 0.1),
    Fault("image_stamp_old", Outcome.HOLD, (*STALE, "image_stale", "clock_jump"), KEYPOINTS_S),
    Fault("image_stamp_future", Outcome.HOLD, (*STALE, "image_from_future", "clock_jump"), KEYPOINTS_S),
    # The joints.
    Fault("joints_silent", Outcome.HOLD, STALE, JOINTS_S),
    Fault("joints_nan", Outcome.HOLD, ("joint_state_not_finite",), 0.1),
    Fault("joints_infinite", Outcome.HOLD, ("joint_state_not_finite",), 0.1),
    Fault("joint_missing", Outcome.HOLD, ("joint_missing",), 0.1),
    Fault("joints_reordered", Outcome.GO_ON),
    Fault("joints_encoder_glitch", Outcome.HOLD, ("tracking_gap",), 0.1),
    Fault("joints_frozen", Outcome.HOLD, NOT_FOLLOWING, FOLLOW_S),
    Fault("joints_late", Outcome.HOLD, (*STALE, "tracking_gap"), JOINTS_S),
    Fault("joints_stamp_old", Outcome.HOLD, STALE, JOINTS_S),
    Fault("joints_stamp_zero", Outcome.HOLD, STALE, JOINTS_S),
    # The tracker's answers.
    Fault("keypoints_silent", Outcome.HOLD, STALE, KEYPOINTS_S),
    Fault("keypoints_not_finite", Outcome.HOLD, ("keypoints_not_finite",), 0.1),
    Fault("keypoints_other_set", Outcome.HOLD, ("keypoint_set_mismatch",), 0.1),
    Fault("keypoints_one_less", Outcome.HOLD, ("keypoint_set_mismatch",), 0.1),
    # The controller.
    Fault("controller_ignores", Outcome.HOLD, NOT_FOLLOWING, FOLLOW_S),
    # The clock.
    Fault("clock_jump_forward", Outcome.RESUME, ("clock_jump", *STALE), simulated=True),
    Fault("clock_jump_back", Outcome.RESUME, ("clock_jump", *STALE), simulated=True),
    # What cannot begin.
    Fault("wrong_robot_file", Outcome.REFUSE, ("joints.names",)),
    Fault("corrupt_policy", Outcome.REFUSE, ("policy.safetensors",)),
    Fault(
        "missing_run_folder",
        Outcome.REFUSE,
        ("does not exist", "no run folder", "not found", "cannot be read"),
    ),
    Fault("future_run_folder", Outcome.REFUSE, ("format_version 99",)),
    # Recorded data.
    Fault("disk_full", Outcome.KEEP, ("the recording has ended: File too large",)),
    Fault("kill_recorder", Outcome.KEEP, ("record_node ended",)),
)


def strike(stage: Stage, fault: Fault, seed: int) -> Result:
    """One fault in motion, judged from the recorder's file."""
    robot = stage.robot
    result = Result(fault.name, seed)
    began_s = time.time()
    stage.move(seed)
    struck_s = time.time()
    (fault.act or (lambda s: s.inject(fault.name)))(stage)
    long_s = OBSERVE_S + (fault.detect_s if fault.outcome is Outcome.HOLD else 0.0)
    time.sleep(max(0.0, struck_s + long_s - time.time()))
    cleared_s = time.time()
    if not fault.own_graph:
        stage.inject("")
        time.sleep(RESUME_S)
        stage.client.stop_policy()
        time.sleep(0.4)
    wire = Wire.load(stage.wire_path, robot.joint_count, began_s)
    confirmed = [t for t, name in wire.faults if name == fault.name]
    struck_s = confirmed[0] if confirmed else struck_s
    # On a simulated clock commands are due at the stamps of images, and sent when the answer is there.
    timing = {"tolerance_s": 0.5 / robot.control_rate_hz} if fault.simulated else {}
    result.limit_violations = limit_violations(wire, robot, **timing)
    result.causes = sorted({cause for t, cause in wire.causes if struck_s <= t <= cleared_s})
    states = [state for t, state in wire.states if struck_s <= t <= cleared_s]
    if fault.outcome is Outcome.HOLD:
        # Two control periods to react, the time to brake from this speed, and one period's sampling.
        speed = np.abs(velocity_at(wire, struck_s))
        joints = robot.joints
        brake_s = float((speed / np.array(joints.acceleration_max_rad_s2)).max()) + 0.05
        deadline_s = struck_s + fault.detect_s + 3.0 / robot.control_rate_hz + brake_s
        last_s = last_motion_s(wire, struck_s, cleared_s)
        result.stop_s = None if last_s is None else round(last_s - struck_s, 3)
        if last_s is not None and last_s > deadline_s:
            result.motion_after_deadline_s = round(last_s - deadline_s, 3)
        named = set(result.causes)
        if PolicyStatus.STOPPED in states:
            named.add("STOPPED")
        if fault.name == "kill_policy":
            named.add(_obituary(stage))
        if not any(any(name in given for given in named) for name in fault.causes):
            result.unnamed = f"{sorted(named)} holds none of {list(fault.causes)}"
    elif fault.outcome is Outcome.RESUME:
        if fault.causes and not set(fault.causes) & set(result.causes):
            result.unnamed = f"{result.causes} holds none of {list(fault.causes)}"
        # Found anew, as after a reset or a jump of the clock, the points may lie behind the hand: then it holds, rightly.
        held = {cause for t, cause in wire.causes if cleared_s < t <= cleared_s + RESUME_S}
        after = [state for t, state in wire.states if cleared_s + 0.6 <= t <= cleared_s + RESUME_S]
        if PolicyStatus.RUNNING not in after and "tracker_transfer_failed" not in held:
            result.wrong = f"it did not go on once the fault was over: {sorted(held)}"
    elif fault.outcome is Outcome.GO_ON and (not states or PolicyStatus.HOLDING in states):
        result.wrong = f"it held: {result.causes}"
    return result


def _obituary(stage: Stage) -> str:
    try:
        stage.nodes.check()
    except GraphError as error:
        return str(error).splitlines()[0]
    return ""


def refuse(fault: Fault, seed: int, run_folder: Path, robot_path: Path, scratch: Path) -> Result:
    """Start a policy node that must not come up."""
    result = Result(fault.name, seed)
    run, robot = scratch / f"{fault.name}_{seed}", robot_path
    shutil.rmtree(run, ignore_errors=True)
    if fault.name != "missing_run_folder":
        shutil.copytree(run_folder, run)
    if fault.name == "wrong_robot_file":
        content = yaml.safe_load(robot_path.read_text())
        content["joints"]["names"] = [f"other_{name}" for name in content["joints"]["names"]]
        robot = run / "other_robot.yaml"
        robot.write_text(yaml.safe_dump(content))
    elif fault.name == "corrupt_policy":
        weights = run / "policy.safetensors"
        garbled = bytearray(weights.read_bytes())
        cut = int(np.random.default_rng(seed).integers(1, len(garbled) - 1))
        weights.write_bytes(bytes(garbled[:cut]))
    elif fault.name == "future_run_folder":
        content = yaml.safe_load((run / "policy.yaml").read_text())
        (run / "policy.yaml").write_text(yaml.safe_dump({**content, "format_version": 99}))
    command = [str(executable_path("atk_policy", "policy_node")), "--ros-args"]
    command += ["-p", f"run_folder:={run}", "-p", f"robot:={robot}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if ended.returncode == 0:
        result.wrong = "the node came up"
    said = ended.stdout + ended.stderr
    if not any(cause in said for cause in fault.causes):
        result.unnamed = said.strip()[-300:] or "nothing was said"
    return result


def record(fault: Fault, seed: int, robot_path: Path, scratch: Path, domain_id: int) -> Result:
    """Spoil a recording in its middle; what had reached the disk must be readable afterwards.

    The recorder writes chunks of a megabyte, four a second here: what it took `ON_DISK_S` before is on the disk.
    """
    result = Result(fault.name, seed)
    folder = scratch / f"{fault.name}_{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    written: list[tuple[float, int]] = []
    with NodeGraph(folder / "logs", domain_id) as nodes:
        sim = demo._sim_parameters(argparse.Namespace(task="sushi"), robot_path)
        nodes.start("atk_sim", "sim_robot_node", sim)
        recorder = nodes.start(
            "atk_perception",
            "record_node",
            {"robot": str(robot_path), "output": str(folder), "use_sim_time": True},
        )
        with ClosedLoopClient(nodes) as client:
            client.node.create_subscription(
                RecordStatus,
                "recorder/status",
                lambda status: written.append((time.monotonic(), status.images)),
                STATUS_QOS,
            )
            client.start_recording("episode")
            client.reset("sushi", "RP", seed, "expert")
            client.wait_for("images to be recorded", lambda: bool(written) and written[-1][1] >= 25, 60.0)
            if fault.name == "disk_full":
                # The kernel refuses every further byte of any file of this process, as a full disk would.
                grown = sum(path.stat().st_size for path in (folder / "episode.recording").rglob("*.mcap"))
                subprocess.run(["prlimit", "--pid", str(recorder.pid), f"--fsize={grown + 1}"], check=True)
                struck_s = time.monotonic()
                try:
                    time.sleep(3.0)
                    said = client.end_recording(RecordEpisode.Request.KEEP)
                except GraphError as refusal:
                    said = str(refusal)
            else:
                recorder.kill()
                struck_s = time.monotonic()
                recorder.wait()
                said = _ended(nodes)
            images = max((count for t_s, count in written if t_s < struck_s - ON_DISK_S), default=0)
    if not any(cause in said for cause in fault.causes):
        result.unnamed = said.strip()[-300:] or "nothing was said"
    if images == 0:
        result.wrong = f"nothing had been recorded {ON_DISK_S} s before the fault"
    result.records_lost = max(0, images - _readable_images(folder, robot_path))
    return result


def _ended(nodes: NodeGraph) -> str:
    try:
        nodes.check()
    except GraphError as error:
        return str(error)
    return ""


def _readable_images(folder: Path, robot_path: Path) -> int:
    """Images in the bag that a spoilt recording left, after `recover` where it has to be repaired."""
    robot = RobotDescription.load(robot_path)
    bags = [path for path in folder.glob("episode*") if path.is_dir()]
    count = 0
    for bag in bags:
        subprocess.run(
            [str(executable_path("atk_perception", "recover_bag")), str(bag)],
            capture_output=True,
            check=False,
        )
        try:
            count = max(count, sum(1 for _ in bag_messages(bag, [robot.camera.recorded_topic])))
        except BagError as error:
            tqdm.write(f"{bag}: {error}", file=sys.stderr)
    return count


def run_campaign(
    args: argparse.Namespace, run_folder: Path, robot_path: Path, domain_id: int
) -> list[Result]:
    """Every chosen fault with every seed; results are appended to results.jsonl as they come, and those there count."""
    output: Path = args.output
    chosen = [fault for fault in FAULTS if not args.only or fault.name in args.only]
    seeds = range(FIRST_SEED, FIRST_SEED + args.seeds)
    lines = output / "results.jsonl"
    if not args.resume:
        lines.unlink(missing_ok=True)
    results = [Result(**json.loads(line)) for line in lines.open()] if lines.exists() else []
    done = {(result.fault, result.seed) for result in results}
    bar = tqdm(
        total=len(chosen) * len(seeds), initial=len(done), desc="faults", unit="fault", file=sys.stderr
    )
    graphs = 0

    def note(result: Result) -> None:
        results.append(result)
        with lines.open("a") as file:
            file.write(json.dumps(asdict(result)) + "\n")
        bar.update()

    def open_stage(simulated: bool) -> Stage:
        nonlocal graphs
        graphs += 1
        logs = output / "logs" / f"graph_{graphs:03d}"
        return Stage(run_folder, robot_path, logs, domain_id, simulated=simulated)

    for seed in seeds:
        left = [fault for fault in chosen if (fault.name, seed) not in done]
        for simulated in (False, True):
            mine = [
                f
                for f in left
                if f.simulated == simulated and f.outcome not in (Outcome.REFUSE, Outcome.KEEP)
            ]
            stage: Stage | None = None
            try:
                for fault in sorted(mine, key=lambda f: f.own_graph):
                    bar.set_postfix_str(fault.name)
                    stage = stage or open_stage(simulated)
                    note(strike(stage, fault, seed))
                    if fault.own_graph:
                        stage.close()
                        stage = None
            finally:
                if stage is not None:
                    stage.close()
        for fault in left:
            if fault.outcome is Outcome.REFUSE:
                note(refuse(fault, seed, run_folder, robot_path, output / "scratch"))
            elif fault.outcome is Outcome.KEEP:
                note(record(fault, seed, robot_path, output / "scratch", domain_id))
    bar.close()
    return results


def summary(results: list[Result]) -> dict[str, Any]:
    """The figures of the last line."""
    stops = [r.stop_s for r in results if r.stop_s is not None]
    return {
        "faults": len({r.fault for r in results}),
        "seeds": len({r.seed for r in results}),
        "limit_violations": sum(len(r.limit_violations) for r in results),
        "motion_after_deadline": sum(r.motion_after_deadline_s is not None for r in results),
        "unnamed_causes": sum(bool(r.unnamed) for r in results),
        "records_lost": sum(r.records_lost for r in results),
        "wrong_outcomes": sum(bool(r.wrong) for r in results),
        "stop_s": {"p50": float(np.median(stops)), "max": max(stops)} if stops else None,
    }


def table(results: list[Result]) -> str:
    """One line a fault."""
    lines = [f"{'fault':<24} {'runs':>4}  {'stopped after [s]':<18} {'causes'}"]
    for name in dict.fromkeys(r.fault for r in results):
        mine = [r for r in results if r.fault == name]
        stops = [r.stop_s for r in mine if r.stop_s is not None]
        when = f"{np.median(stops):.2f} (max {max(stops):.2f})" if stops else "-"
        causes = ", ".join(sorted({c for r in mine for c in r.causes})) or "-"
        lines.append(f"{name:<24} {len(mine):4d}  {when:<18} {causes}")
        for r in mine:
            problems = [problem for problem in (*r.limit_violations[:3], r.unnamed, r.wrong) if problem]
            lines += [f"    seed {r.seed}: {problem}" for problem in problems]
            if r.motion_after_deadline_s is not None:
                lines.append(f"    seed {r.seed}: moved {r.motion_after_deadline_s} s past the deadline")
            if r.records_lost:
                lines.append(f"    seed {r.seed}: {r.records_lost} images lost")
    return "\n".join(lines)


def main() -> None:
    """Console entry; the last line of standard output is JSON."""
    parser = argparse.ArgumentParser(
        prog="fault_campaign", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/faults"), help="folder (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=int, default=5, help="episodes per fault (default: %(default)s)")
    parser.add_argument(
        "--run-folder", type=Path, help="policy (default: one from twenty demonstrations, made once)"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="FAULT", choices=[f.name for f in FAULTS], help="only these"
    )
    parser.add_argument(
        "--resume", action="store_true", help="keep the results in the folder, and do what is missing"
    )
    args = parser.parse_args()
    domain_id = int(os.environ.get("ROS_DOMAIN_ID") or 10 + os.getpid() % 80)
    args.output.mkdir(parents=True, exist_ok=True)
    robot_path = robot_file("sim_panda")
    try:
        run = args.run_folder or demo.small_run(args.output, robot_path, 20, domain_id)
        results = run_campaign(args, run, robot_path, domain_id)
    except GraphError as error:
        raise SystemExit(f"fault_campaign: {error}") from error
    text = table(results)
    (args.output / "table.txt").write_text(text + "\n")
    print(f"{text}\n")
    print(json.dumps(summary(results)))


if __name__ == "__main__":
    main()
