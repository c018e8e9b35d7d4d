"""What ATK is compared with: points that others chose, pictures, and a model that is asked."""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from atk_perception.keypoint_set import KeypointSet
from atk_perception.robot_description import RobotDescription
from atk_policy.selection import CandidateConfig, SelectionConfig, propose_candidates
from atk_sim.benchmark import cells_of, parse_arguments
from atk_sim.dagger import CorrectionWriter
from atk_sim.methods import METHODS, vlm
from atk_sim.methods.atk import Atk
from atk_sim.methods.other_sets import ALPHAS, FullSet, ManualSelect, Published, RandomSelect, points_config
from atk_sim.methods.protocol import Lesson
from atk_sim.rollout import ExactTracks
from atk_sim.simulation import Simulation
from atk_sim.tasks import TASKS
from atk_sim.tasks.protocol import Task

INSTRUCTION = TASKS["sushi"].instruction


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_a_person_picked_points_on_things_that_move_between_episodes(task: Task, simulation: Simulation):
    picked = np.array(task.picked_uv_px, float)
    assert 4 <= len(picked) <= 12
    exact = ExactTracks(simulation, task.name, 0, picked)
    assert set(exact.names) - {"world", "table", "wall", "floor"}, "nothing but furniture was picked"
    here = exact.uv_px(simulation)
    simulation.reset(task.name, "RP", 1)
    exact.begin(simulation)
    assert np.abs(exact.uv_px(simulation) - here).max() > 3.0


def test_manual_refuses_demonstrations_that_do_not_show_what_was_picked_on(robot, tmp_path):
    lesson = Lesson("sushi", robot, [tmp_path], [3], 1.0, tmp_path)
    with pytest.raises(ValueError, match="first image of seed 0, but the first demonstration is of seed 3"):
        ManualSelect().config(lesson, 0, tmp_path, print)


def test_sets_that_nobody_chose_keep_what_they_are_given(robot, tmp_path):
    lesson = Lesson("sushi", robot, [tmp_path], [0], 1.0, tmp_path)
    full = FullSet().config(lesson, 4, tmp_path, print)
    assert (full.choice.objective, full.candidates.count, full.seed) == ("all", 256, 4)
    manual = ManualSelect().config(lesson, 4, tmp_path, print)
    assert manual.candidates.uv_px == tuple((float(u), float(v)) for u, v in TASKS["sushi"].picked_uv_px)
    assert manual.choice.objective == "all"
    assert points_config(lesson, 1, [(3, 4)]).candidates.uv_px == ((3.0, 4.0),)


def test_published_differs_from_atk_in_the_choice_alone(robot, tmp_path):
    lesson = Lesson("sushi", robot, [tmp_path], [0], 1.0, tmp_path)
    atk = Atk().config(lesson, 2, tmp_path, print)
    for alpha in ALPHAS:
        method = Published(alpha)
        assert METHODS[method.name].name == f"published_{alpha:g}"
        config = method.config(lesson, 2, tmp_path, print)
        assert (config.choice.objective, config.select.penalty.alpha) == ("published", alpha)
        assert config.model_copy(update={"choice": atk.choice, "select": atk.select}) == atk


def write_still(bag: Path, robot: RobotDescription, image: np.ndarray) -> Path:
    """A demonstration in which nothing moves."""
    writer = CorrectionWriter(bag, robot)
    home = np.append(robot.home_rad, 0.04)
    for k in range(3):
        writer.add(10**9 + k * robot.control_period_ns, image, home, home)
    writer.keep()
    return bag


def test_random_draws_as_many_as_atk_kept_of_what_atk_could_choose(robot, tmp_path):
    """The left half is another one in every demonstration: what lies there cannot be tracked, and ATK could not keep it."""
    rng = np.random.default_rng(0)
    height, width = robot.camera.height, robot.camera.width

    def blurred() -> np.ndarray:  # texture that a tracker likes
        noise = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3.0), None, 0, 255, cv2.NORM_MINMAX)

    image, bags = blurred(), []
    for number in range(2):
        picture = image.copy()
        picture[:, : width // 2] = blurred()[:, : width // 2]
        bags.append(write_still(tmp_path / "demonstrations" / f"episode_{number:04d}", robot, picture))
    settings = SelectionConfig(candidates=CandidateConfig(count=60))
    lesson = Lesson("sushi", robot, bags, [0, 1], 1.0, tmp_path / "tracks", settings)
    KeypointSet.create("sushi", rng.uniform(20, 400, (7, 2)), image).save(tmp_path / "atk" / "seed_1")
    first, again = (RandomSelect().config(lesson, 1, tmp_path / "random" / "seed_1", print) for _ in range(2))
    assert first == again
    drawn = np.array(first.candidates.uv_px)
    assert len(np.unique(drawn, axis=0)) == 7
    candidates = propose_candidates(bags, robot, Atk().config(lesson, 1, tmp_path, print))
    assert (candidates.uv_px[:, 0] < width / 2 - 20).sum() > 10
    assert set(first.candidates.uv_px) <= {tuple(point) for point in candidates.uv_px.tolist()}
    assert drawn[:, 0].min() > width / 2 - 20
    # Nothing that is drawn is left out later: all of them are kept.
    assert first.candidates.visible_min == first.candidates.transferred_min == 0.0
    assert first.choice.objective == "all"


# ------------------------------------------------------------------------------------------------ vlm


class _Server(ThreadingHTTPServer):
    """Speaks the chat API: answers with `text`, or refuses with `status`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.text, self.status = "", 200
        self.asked: list[dict] = []
        self.keys: list[str | None] = []


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        self.server.keys.append(self.headers.get("Authorization"))
        message = {"role": "assistant", "content": self.server.text}
        choices = [{"index": 0, "finish_reason": "stop", "message": message}]
        reply = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": choices}
        if self.server.status != 200:
            reply = {"error": {"message": "no such model", "type": "invalid_request_error"}}
        content = json.dumps(reply).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[_Server]:
    pytest.importorskip("openai", reason="pip install -r requirements/vlm.txt")
    serving = _Server()
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    monkeypatch.setenv(vlm.MODEL, "seer")
    monkeypatch.setenv(vlm.URL, f"http://127.0.0.1:{serving.server_address[1]}/v1")
    monkeypatch.setenv(vlm.KEY, "secret")
    yield serving
    serving.shutdown()
    thread.join()
    serving.server_close()


def test_a_model_is_shown_the_template_and_told_the_task(server):
    server.text = '{"points": [{"u": 12.5, "v": 30, "what": "the piece"}, {"u": 90, "v": 80}]}'
    picture = np.zeros((100, 120, 3), np.uint8)
    picture[..., 0] = 200
    answer = vlm.ask(picture, INSTRUCTION)
    assert [(p.u, p.v, p.what) for p in answer.points] == [(12.5, 30.0, "the piece"), (90.0, 80.0, "")]
    (asked,) = server.asked
    assert (asked["model"], server.keys) == ("seer", ["Bearer secret"])
    text, image = asked["messages"][0]["content"]
    assert INSTRUCTION in text["text"]
    assert "120 pixels wide and 100 high" in text["text"]
    png = np.frombuffer(base64.b64decode(image["image_url"]["url"].split(",")[1]), np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(png, cv2.IMREAD_COLOR)[..., ::-1], picture)


def test_an_answer_is_kept_and_not_asked_for_again(server, robot, tmp_path, monkeypatch):
    server.text = '{"points": [{"u": 1, "v": 2}]}'
    monkeypatch.setattr(vlm, "first_image", lambda *_: np.zeros((480, 640, 3), np.uint8))
    lesson = Lesson("sushi", robot, [tmp_path], [0], 1.0, tmp_path)
    first, second = (vlm.VlmSelect().config(lesson, 0, tmp_path, lambda line: None) for _ in range(2))
    assert first == second
    assert first.candidates.uv_px == ((1.0, 2.0),)
    assert len(server.asked) == 1


def test_a_server_that_refuses_is_named(server):
    server.status = 404
    with pytest.raises(vlm.VlmError, match=r"seer at http://127\.0\.0\.1:\d+/v1: .*no such model"):
        vlm.ask(np.zeros((10, 10, 3), np.uint8), INSTRUCTION)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("I see sushi.", "did not answer with points as asked: 'I see sushi"),
        ('{"points": []}', "did not answer with points"),
        ('{"points": [{"u": "left"}]}', "did not answer with points"),
        (
            '{"points": [{"u": 0.5, "v": 700, "what": "plate"}]}',
            "0.5, 700 .plate., which is not in the picture",
        ),
    ],
)
def test_answers_that_cannot_be_used_are_explained(text, match):
    with pytest.raises(vlm.VlmError, match=match):
        vlm.parse(text, 640, 480)


def test_words_around_the_answer_and_too_many_points_do_no_harm():
    points = json.dumps({"points": [{"u": k, "v": k} for k in range(40)]})
    assert len(vlm.parse(f"Here you are:\n```json\n{points}\n```", 640, 480).points) == vlm.POINTS_MAX


def tried(tmp_path: Path) -> set[str]:
    return {cell.method for cell in cells_of(parse_arguments(["--output", str(tmp_path)]))}


def test_the_model_is_off_unless_configured(monkeypatch, tmp_path):
    monkeypatch.delenv(vlm.MODEL, raising=False)
    assert "vlm" not in tried(tmp_path)
    with pytest.raises(vlm.VlmError, match="ATK_VLM_MODEL"):
        vlm.ask(np.zeros((10, 10, 3), np.uint8), INSTRUCTION)
    pytest.importorskip("openai", reason="pip install -r requirements/vlm.txt")
    monkeypatch.setenv(vlm.MODEL, "seer")
    assert "vlm" in tried(tmp_path)


def test_a_method_whose_package_is_not_installed_is_left_out_and_the_command_named(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv(vlm.MODEL, "seer")
    for package in ("transformers", "openai"):
        monkeypatch.setitem(sys.modules, package, None)  # what an import then takes for not installed
    assert not tried(tmp_path) & {"rgb", "depth", "vlm"}
    assert {"atk", "pose", "pointcloud"} <= tried(tmp_path)
    with pytest.raises(SystemExit):
        parse_arguments(["--method", "rgb"])
    assert "pip install -r requirements/baselines.txt" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse_arguments(["--method", "vlm"])
    assert "pip install -r requirements/vlm.txt" in capsys.readouterr().err
