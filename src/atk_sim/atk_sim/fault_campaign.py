"""Every fault that a robot may meet, injected while the arm moves; an independent recorder says what came of it.

The graphs are those of fault_stage.py. For each fault and seed the policy is started, the arm moves, the fault
strikes. Then the file of a recorder process of its own is read: was any limit broken on the wire, did the
hold begin within two control periods of when the fault can be known, did anything but braking move after
that, was the cause named. Recording faults ask what became of written data.
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
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from lifecycle_msgs.msg import Transition
from tqdm import tqdm

from atk_interfaces.msg import PolicyStatus, RecordStatus
from atk_interfaces.srv import RecordEpisode
from atk_perception.frames import BagError, bag_messages
from atk_perception.record_node import STATUS_QOS
from atk_perception.robot_description import RobotDescription
from atk_policy.json_lines import append_json_line, read_json_lines
from atk_sim import demo
from atk_sim.closed_loop_node import ClosedLoopClient
from atk_sim.fault_injector_node import CLOCK_JUMP_NS
from atk_sim.fault_stage import Rig, Stage, changed_robot
from atk_sim.graph import GraphError, NodeGraph, executable_path, robot_file
from atk_sim.wire_check import Wire, limit_violations, stop_after

FIRST_SEED = 20_000
OBSERVE_S = 1.6
RESUME_S = 1.2
# What is answered so long after a fault was cleared may still be from before.
ON_ITS_WAY_S = 0.1
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
        act: what to do instead of telling the injector; returns when it did [s].
        own_graph: it leaves a graph behind that nobody can use.
        rig: the graph that it needs.
    """

    name: str
    outcome: Outcome
    causes: tuple[str, ...] = ()
    detect_s: float = 0.0
    act: Callable[[Stage], float] | None = None
    own_graph: bool = False
    rig: Rig = Rig.DRIVERS


@dataclass
class Result:
    """What came of one fault with one seed; empty lists and strings are good."""

    fault: str
    seed: int
    limit_violations: list[str] = field(default_factory=list)
    hold_s: float | None = None  # from the fault to the first word of a hold
    late_hold_s: float | None = None  # how much later than it may be that was
    motion_after_deadline_s: float | None = None  # how long after it the arm was still commanded to move
    stop_s: float | None = None  # from the fault to the last motion
    causes: list[str] = field(default_factory=list)
    unnamed: str = ""
    wrong: str = ""
    records_lost: int = 0


def _signal(label: str, number: int) -> Callable[[Stage], float]:
    return lambda stage: stage.signal(label, number)


def _kill(label: str) -> Callable[[Stage], float]:
    return _signal(label, signal.SIGKILL)


def _transition(node: str, transition: int) -> Callable[[Stage], float]:
    return lambda stage: stage.change_state(node, transition)


# A node's silence is known when two of its messages are missing. What was on its way when it fell silent is still answered
# (20 ms from camera to command), and the watchdog looks eight times a control period; the rest is for the scheduler.
SILENCE_S = 0.02 + 0.025
IMAGE_S = 0.2  # the deadline of sim_panda.yaml
# A joint may stand still off its setpoint for a second; until then the setpoint may have to get that far off.
FOLLOW_S = 1.6
# What an arm is behind its setpoints, where the arm itself is judged.
LAG_S = 0.3
NOT_FOLLOWING = ("not_following", "tracking_gap")
STALE = ("keypoints_stale", "joint_state_stale")
CLOCK = ("clock_jump", *STALE, "image_stale", "image_from_future", "joint_state_from_future")
HOLD, RESUME = Outcome.HOLD, Outcome.RESUME
FAULTS = (
    # Who dies or hangs.
    Fault("kill_camera", HOLD, STALE, SILENCE_S, _kill("camera_node"), own_graph=True, rig=Rig.CAMERA),
    Fault("kill_tracker", HOLD, STALE, SILENCE_S, _kill("tracker_node"), own_graph=True),
    Fault("kill_robot", HOLD, STALE, SILENCE_S, _kill("sim_robot_node"), own_graph=True),
    Fault("kill_drivers", HOLD, STALE, SILENCE_S, _kill("fault_injector_node"), own_graph=True),
    Fault("kill_policy", HOLD, ("policy_node ended",), 0.0, _kill("policy_node"), own_graph=True),
    Fault(
        "kill_moveit",
        HOLD,
        ("plan_check_stale",),
        SILENCE_S,
        _kill("moveit_node"),
        own_graph=True,
        rig=Rig.MOVEIT,
    ),
    Fault("hang_tracker", HOLD, STALE, SILENCE_S, _signal("tracker_node", signal.SIGSTOP), own_graph=True),
    Fault(
        "hang_moveit",
        HOLD,
        ("plan_check_stale",),
        SILENCE_S,
        _signal("moveit_node", signal.SIGSTOP),
        own_graph=True,
        rig=Rig.MOVEIT,
    ),
    Fault("pause_policy", RESUME, act=lambda stage: stage.pause("policy_node", 0.5)),
    # Who asks.
    Fault("stop_service", HOLD, ("STOPPED",), act=Stage.stop_policy),
    Fault("ctrl_c_policy", HOLD, ("STOPPED",), 0.0, _signal("policy_node", signal.SIGINT), own_graph=True),
    Fault(
        "terminate_policy", HOLD, ("STOPPED",), 0.0, _signal("policy_node", signal.SIGTERM), own_graph=True
    ),
    Fault(
        "deactivate_policy",
        HOLD,
        ("STOPPED",),
        0.0,
        _transition("policy", Transition.TRANSITION_DEACTIVATE),
        own_graph=True,
    ),
    Fault(
        "deactivate_tracker",
        HOLD,
        STALE,
        SILENCE_S,
        _transition("tracker", Transition.TRANSITION_DEACTIVATE),
        own_graph=True,
    ),
    Fault("reset_tracker", RESUME, act=Stage.reset_tracker),
    # The camera.
    Fault("camera_silent", HOLD, STALE, SILENCE_S),
    Fault("camera_frozen", HOLD, ("image_frozen",), IMAGE_S + 0.1),
    Fault("images_late", HOLD, (*STALE, "image_stale"), SILENCE_S),
    # One in ten passes, the tenth first.
    Fault("images_dropped", RESUME, (*STALE, "image_stale"), SILENCE_S),
    Fault("images_out_of_order", RESUME),
    Fault("image_black", HOLD, ("too_few_keypoints", "tracker_lost"), 0.1),
    Fault("image_noise", HOLD, ("too_few_keypoints", "tracker_lost"), 0.1),
    Fault("image_other_size", HOLD, ("tracker_transfer_failed",), 0.1),
    Fault("image_stamp_old", HOLD, (*STALE, "image_stale", "clock_jump"), SILENCE_S),
    Fault("image_stamp_future", HOLD, (*STALE, "image_from_future", "clock_jump"), SILENCE_S),
    # The joints.
    Fault("joints_silent", HOLD, STALE, SILENCE_S),
    Fault("joints_nan", HOLD, ("joint_state_not_finite",), SILENCE_S),
    Fault("joints_infinite", HOLD, ("joint_state_not_finite",), SILENCE_S),
    Fault("joint_missing", HOLD, ("joint_missing",), SILENCE_S),
    Fault("joints_reordered", Outcome.GO_ON),
    Fault("joints_encoder_glitch", HOLD, ("tracking_gap",), SILENCE_S),
    Fault("joints_frozen", HOLD, NOT_FOLLOWING, FOLLOW_S),
    Fault("joints_late", HOLD, (*STALE, "tracking_gap"), SILENCE_S),
    Fault("joints_stamp_old", HOLD, STALE, SILENCE_S),
    Fault("joints_stamp_zero", HOLD, STALE, SILENCE_S),
    # The tracker's answers.
    Fault("keypoints_silent", HOLD, STALE, SILENCE_S),
    Fault("keypoints_not_finite", HOLD, ("keypoints_not_finite",), SILENCE_S),
    Fault("keypoints_other_set", HOLD, ("keypoint_set_mismatch",), SILENCE_S),
    Fault("keypoints_one_less", HOLD, ("keypoint_set_mismatch",), SILENCE_S),
    # The controller.
    Fault("controller_ignores", HOLD, NOT_FOLLOWING, FOLLOW_S),
    Fault("controller_rejects", HOLD, ("controller_rejected",), SILENCE_S, rig=Rig.ACTION),
    # The clock: a simulated one, and the system's.
    Fault("clock_jump_forward", RESUME, CLOCK, SILENCE_S, rig=Rig.SIMULATED),
    Fault("clock_jump_back", RESUME, CLOCK, SILENCE_S, rig=Rig.SIMULATED),
    Fault(
        "clock_set_forward",
        RESUME,
        CLOCK,
        SILENCE_S,
        lambda stage: stage.set_clock(CLOCK_JUMP_NS),
        rig=Rig.SET_CLOCK,
    ),
    Fault(
        "clock_set_back",
        RESUME,
        CLOCK,
        SILENCE_S,
        lambda stage: stage.set_clock(-CLOCK_JUMP_NS),
        rig=Rig.SET_CLOCK,
    ),
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
    struck_s = (fault.act or (lambda s: s.inject(fault.name)))(stage)
    long_s = OBSERVE_S + (fault.detect_s if fault.outcome is Outcome.HOLD else 0.0)
    time.sleep(max(0.0, struck_s + long_s - time.time()))
    cleared_s = time.time()
    if not fault.own_graph:
        if stage.clock is not None:
            stage.set_clock(0)
        stage.inject("")
        time.sleep(RESUME_S)
        stage.client.stop_policy()
        time.sleep(0.4)
    was_set = fault.rig is Rig.SET_CLOCK
    wire = Wire.load(stage.wire_path, robot.joint_count, began_s, as_received=was_set)
    confirmed = [t for t, name in wire.faults if name == fault.name]
    struck_s = confirmed[0] if confirmed else struck_s
    # On a simulated clock commands are due at the stamps of images, and sent when the answer is there; what is known is
    # when they came where the senders' clock was set, and when they were handed on where a controller takes goals.
    sent = fault.rig not in (Rig.SIMULATED, Rig.SET_CLOCK, Rig.ACTION)
    timing = {} if sent else {"tolerance_s": 0.5 / robot.control_rate_hz}
    result.limit_violations = limit_violations(wire, robot, **timing)
    result.causes = sorted({cause for t, cause in wire.causes if struck_s <= t <= cleared_s})
    states = [state for t, state in wire.states if struck_s <= t <= cleared_s]
    is_mute = fault.name == "kill_policy"
    if fault.outcome in (Outcome.HOLD, Outcome.RESUME) and fault.causes:
        stop = stop_after(
            wire,
            robot,
            struck_s,
            cleared_s,
            fault.detect_s,
            is_mute=is_mute,
            resumes=fault.outcome is Outcome.RESUME,
            # Goals that are refused are no setpoints: what moves the arm is the plan of the last one.
            follow_s=LAG_S if fault.rig is Rig.ACTION else None,
        )
        result.hold_s, result.late_hold_s = _rounded(stop.hold_s), _rounded(stop.late_s)
        result.stop_s, result.motion_after_deadline_s = _rounded(stop.stop_s), _rounded(stop.moved_s)
        named = set(result.causes)
        if PolicyStatus.STOPPED in states:
            named.add("STOPPED")
        if is_mute:
            named.add(_ended(stage.nodes).partition("\n")[0])
        elif stop.hold_s is None:
            result.wrong = "it did not hold"
        if not any(any(name in given for given in named) for name in fault.causes):
            result.unnamed = f"{sorted(named)} holds none of {list(fault.causes)}"
    if fault.outcome is Outcome.RESUME:
        # Found anew, as after a reset or a jump of the clock, the points may lie behind the hand: then it holds, rightly.
        held = {cause for t, cause in wire.causes if cleared_s < t <= cleared_s + RESUME_S}
        # A clock has jumped once it was held; other faults last until they are cleared, which for a clock is another jump.
        over_s = cleared_s + ON_ITS_WAY_S
        if fault.rig in (Rig.SIMULATED, Rig.SET_CLOCK) and result.hold_s is not None:
            over_s = struck_s + result.hold_s
        after = [state for t, state in wire.states if over_s <= t <= cleared_s + RESUME_S]
        if PolicyStatus.RUNNING not in after and "tracker_transfer_failed" not in held:
            result.wrong = f"it did not go on once the fault was over: {sorted(held)}"
    elif fault.outcome is Outcome.GO_ON and (not states or PolicyStatus.HOLDING in states):
        result.wrong = f"it held: {result.causes}"
    return result


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def refuse(fault: Fault, seed: int, run_folder: Path, robot_path: Path, scratch: Path) -> Result:
    """Start a policy node that must not come up."""
    result = Result(fault.name, seed)
    run, robot = scratch / f"{fault.name}_{seed}", robot_path
    shutil.rmtree(run, ignore_errors=True)
    if fault.name != "missing_run_folder":
        shutil.copytree(run_folder, run)
    if fault.name == "wrong_robot_file":
        joints = yaml.safe_load(robot_path.read_text())["joints"]
        joints["names"] = [f"other_{name}" for name in joints["names"]]
        robot = changed_robot(robot_path, run / "other_robot.yaml", joints=joints)
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
    """Which process has ended, with the last lines of its log; '' where all run."""
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
    chosen = [f for f in FAULTS if (not args.only or f.name in args.only) and not f.rig.missing]
    seeds = range(FIRST_SEED, FIRST_SEED + args.seeds)
    lines = output / "results.jsonl"
    if not args.resume:
        lines.unlink(missing_ok=True)
    results = [Result(**row) for row in read_json_lines(lines)]
    done = {(result.fault, result.seed) for result in results}
    bar = tqdm(
        total=len(chosen) * len(seeds), initial=len(done), desc="faults", unit="fault", file=sys.stderr
    )
    graphs = 0

    def note(result: Result) -> None:
        results.append(result)
        append_json_line(lines, asdict(result))
        bar.update()

    def open_stage(rig: Rig) -> Stage:
        nonlocal graphs
        graphs += 1
        logs = output / "logs" / f"graph_{graphs:03d}"
        return Stage(run_folder, robot_path, logs, domain_id, rig)

    for seed in seeds:
        left = [fault for fault in chosen if (fault.name, seed) not in done]
        for rig in Rig:
            mine = [f for f in left if f.rig is rig and f.outcome not in (Outcome.REFUSE, Outcome.KEEP)]
            stage: Stage | None = None
            try:
                for fault in sorted(mine, key=lambda f: f.own_graph):
                    bar.set_postfix_str(fault.name)
                    stage = stage or open_stage(rig)
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


def not_run(only: Collection[str] = ()) -> dict[str, str]:
    """Faults that this machine has no graph for, and why."""
    return {f.name: f.rig.missing for f in FAULTS if f.rig.missing and (not only or f.name in only)}


def summary(results: list[Result]) -> dict[str, Any]:
    """The figures of the last line."""
    stops = [r.stop_s for r in results if r.stop_s is not None]
    holds = [r.hold_s for r in results if r.hold_s is not None]
    return {
        "faults": len({r.fault for r in results}),
        "seeds": len({r.seed for r in results}),
        "limit_violations": sum(len(r.limit_violations) for r in results),
        "motion_after_deadline": sum(r.motion_after_deadline_s is not None for r in results),
        "late_holds": sum(r.late_hold_s is not None for r in results),
        "unnamed_causes": sum(bool(r.unnamed) for r in results),
        "records_lost": sum(r.records_lost for r in results),
        "wrong_outcomes": sum(bool(r.wrong) for r in results),
        "hold_s": {"p50": round(float(np.median(holds)), 3), "max": max(holds)} if holds else None,
        "stop_s": {"p50": round(float(np.median(stops)), 3), "max": max(stops)} if stops else None,
    }


def table(results: list[Result]) -> str:
    """One line a fault."""
    lines = [f"{'fault':<24} {'runs':>4}  {'held after [s]':<18} {'stopped after [s]':<18} {'causes'}"]
    for name in dict.fromkeys(r.fault for r in results):
        mine = [r for r in results if r.fault == name]
        held, stopped = _spread(r.hold_s for r in mine), _spread(r.stop_s for r in mine)
        causes = ", ".join(sorted({c for r in mine for c in r.causes})) or "-"
        lines.append(f"{name:<24} {len(mine):4d}  {held:<18} {stopped:<18} {causes}")
        for r in mine:
            problems = [problem for problem in (*r.limit_violations[:3], r.unnamed, r.wrong) if problem]
            lines += [f"    seed {r.seed}: {problem}" for problem in problems]
            if r.late_hold_s is not None:
                lines.append(f"    seed {r.seed}: held {r.late_hold_s} s past the deadline")
            if r.motion_after_deadline_s is not None:
                lines.append(f"    seed {r.seed}: moved {r.motion_after_deadline_s} s past the deadline")
            if r.records_lost:
                lines.append(f"    seed {r.seed}: {r.records_lost} images lost")
    return "\n".join(lines)


def _spread(seconds: Iterable[float | None]) -> str:
    known = [s for s in seconds if s is not None]
    return f"{np.median(known):.2f} (max {max(known):.2f})" if known else "-"


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
    missing = not_run(args.only or ())
    text = "\n".join([table(results), *(f"{name:<24} not run: {why}" for name, why in missing.items())])
    (args.output / "table.txt").write_text(text + "\n")
    print(f"{text}\n")
    print(json.dumps({**summary(results), "not_run": sorted(missing)}))


if __name__ == "__main__":
    main()
