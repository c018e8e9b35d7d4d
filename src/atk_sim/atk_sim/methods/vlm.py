"""VLMSelect: a vision-language model is shown the template and told the task, and names the keypoints.

Any server that speaks OpenAI's chat completions will do, one of your own (vLLM, Ollama, llama.cpp) among them. Off unless told
which:

    ATK_VLM_MODEL      name of the model; must be set
    ATK_VLM_URL        of the server, e.g. http://localhost:8000/v1   (default: the client's own)
    ATK_VLM_API_KEY    where the server wants one

The client is the package `openai` (requirements/vlm.txt). The answer is kept in the method's folder, so that what was paid for
once is not asked for again.
"""

from __future__ import annotations

import base64
import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from atk_policy.demonstrations import first_image
from atk_policy.keypoint_choice import ChoiceConfig
from atk_policy.selection import SelectionConfig
from atk_sim.methods.atk import KeypointMethod, Report
from atk_sim.methods.other_sets import points_config
from atk_sim.methods.protocol import Lesson
from atk_sim.tasks import TASKS

ANSWER = "vlm_answer.json"
POINTS_MAX = ChoiceConfig().keypoints_max
MODEL, URL, KEY = "ATK_VLM_MODEL", "ATK_VLM_URL", "ATK_VLM_API_KEY"

PROMPT = (
    "This picture, {width} pixels wide and {height} high, shows a robot's scene before it does a task: {instruction}. "
    "Name 4 to {most} points in it whose positions the robot must follow to do the task, wherever the objects lie. "
    "Choose points with visible texture or corners, on the objects that matter and on nothing else. "
    'Answer with JSON only: {{"points": [{{"u": pixels from the left, "v": pixels from the top, "what": "a few words"}}]}}'
)


class VlmError(ValueError):
    """The model cannot be asked, or its answer cannot be used; the message says why and what to do."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Point(_Entry):
    """One point that the model named, pixels of the template."""

    u: float
    v: float
    what: str = ""


class Answer(_Entry):
    """What the model is asked for."""

    points: list[Point] = Field(min_length=1)


class VlmSelect(KeypointMethod):
    """The points that a vision-language model names."""

    name = "vlm"

    def available(self) -> str:
        """See `Method`: a model must have been named, and the client installed."""
        if not os.environ.get(MODEL):
            return f"{MODEL} is not set (see methods/vlm.py)"
        return (
            "" if find_spec("openai") else "it needs the package openai: pip install -r requirements/vlm.txt"
        )

    def config(self, lesson: Lesson, seed: int, folder: Path, report: Report) -> SelectionConfig:
        """The model's points on the first demonstration's first image.

        Raises:
            VlmError: see there.
        """
        file = folder / ANSWER
        if not file.is_file():
            template_rgb = first_image(lesson.bags[0], lesson.robot)
            report(f"asking {os.environ.get(MODEL)}")
            answer = ask(template_rgb, TASKS[lesson.task].instruction)
            file.write_text(answer.model_dump_json(indent=1) + "\n")
        answer = Answer.model_validate_json(file.read_text())
        return points_config(lesson, seed, [(p.u, p.v) for p in answer.points])


def ask(template_rgb: NDArray[np.uint8], instruction: str) -> Answer:
    """The points that the configured model names on a template, (H, W, 3).

    Raises:
        VlmError: nothing is configured, the client is not installed, the server refuses, or the answer is none.
    """
    model = os.environ.get(MODEL)
    if not model:
        raise VlmError(
            f"no vision-language model is configured: set {MODEL}, and {URL} and {KEY} as your server needs"
        )
    try:
        import openai
    except ImportError as error:
        raise VlmError(
            "the method vlm needs the package openai: pip install -r requirements/vlm.txt"
        ) from error
    height, width = template_rgb.shape[:2]
    png = cv2.imencode(".png", cv2.cvtColor(template_rgb, cv2.COLOR_RGB2BGR))[1].tobytes()
    prompt = PROMPT.format(width=width, height=height, instruction=instruction, most=POINTS_MAX)
    content: list[Any] = [
        {"type": "text", "text": prompt},
        {
            "type": "image_url",
            "image_url": {"url": f"data:image/png;base64,{base64.b64encode(png).decode()}"},
        },
    ]
    try:
        # A server of one's own asks for no key, the client for one always.
        client = openai.OpenAI(
            base_url=os.environ.get(URL) or None, api_key=os.environ.get(KEY) or "none", timeout=120.0
        )
        reply = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": content}],
            response_format={"type": "json_object"},
        )
    except openai.OpenAIError as error:
        raise VlmError(f"{model} at {os.environ.get(URL) or 'the default server'}: {error}") from error
    return parse(reply.choices[0].message.content or "", width, height)


def parse(text: str, width: int, height: int) -> Answer:
    """The answer in a model's text.

    Raises:
        VlmError: no JSON as asked for, or points outside the image.
    """
    try:
        answer = Answer.model_validate(json.loads(text[text.find("{") : text.rfind("}") + 1]))
    except (json.JSONDecodeError, ValidationError) as error:
        raise VlmError(
            f"the model did not answer with points as asked: {text[:200]!r}. Try again, or another model"
        ) from error
    outside = [p for p in answer.points if not (0 <= p.u <= width - 1 and 0 <= p.v <= height - 1)]
    if outside:
        raise VlmError(
            f"the model named {outside[0].u:g}, {outside[0].v:g} ({outside[0].what}), which is not in the picture of "
            f"{width}x{height}. Does it give positions in another unit? Try another model"
        )
    return answer.model_copy(update={"points": answer.points[:POINTS_MAX]})
