"""What a policy was learnt from is known, and anything else is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from atk_policy.distillation import StageConfig
from atk_policy.selection import SelectionConfig
from atk_sim import provenance
from atk_sim.methods.protocol import Lesson
from atk_sim.provenance import Learnt, LearntError, Source, code_files


@pytest.fixture
def lesson(robot, tmp_path: Path) -> Lesson:
    bags = []
    for number in range(3):
        bags.append(tmp_path / f"episode_{number:04d}")
        bags[-1].mkdir()
        (bags[-1] / "0.mcap").write_bytes(bytes([number]))
    return Lesson("sushi", robot, bags, [0, 1, 2], 1.0, tmp_path)


def test_whatever_a_policy_depends_on_changes_its_digest(lesson, robot):
    source = Source.of(lesson, "atk", 0)
    assert source == Source.of(lesson, "atk", 0)
    changed = {
        "training_seed": Source.of(lesson, "atk", 1),
        "method": Source.of(lesson, "fullset", 0),
        "bags": Source.of(Lesson("sushi", robot, lesson.bags[:2], [0, 1], 1.0, lesson.tracks), "atk", 0),
        "servo_noise": Source.of(
            Lesson("sushi", robot, lesson.bags, lesson.seeds, 0.5, lesson.tracks), "atk", 0
        ),
    }
    settings = SelectionConfig(refit=StageConfig(steps=9, batch=9, members=1, learning_rate=1e-3))
    taught = Lesson("sushi", robot, lesson.bags, lesson.seeds, 1.0, lesson.tracks, settings)
    changed["settings"] = Source.of(taught, "atk", 0)
    (lesson.bags[1] / "0.mcap").write_bytes(b"recorded again")
    changed["demonstrations"] = Source.of(lesson, "atk", 0)
    for name, other in changed.items():
        assert name in source.differences(other)
        assert other.digest != source.digest
    assert len({other.digest for other in changed.values()}) == len(changed)


def test_what_was_learnt_from_something_else_is_refused_by_name(lesson, tmp_path):
    source = Source.of(lesson, "atk", 0)
    file = tmp_path / "learnt.json"
    Learnt(digest=source.digest, source=source, seconds=3.0).save(file)
    Learnt.load(file).require(source, "sushi atk seed 0")
    now = source.model_copy(update={"perception": "another", "servo_noise": 2.0})
    with pytest.raises(
        LearntError, match=r"sushi atk seed 0 was learnt .*: servo_noise, perception .*--relearn"
    ):
        Learnt.load(file).require(now, "sushi atk seed 0")
    file.write_text('{"demonstrations": 80, "seconds": 300.0}')  # as once
    with pytest.raises(LearntError, match="older version"):
        Learnt.load(file)


@pytest.fixture
def package(tmp_path: Path, monkeypatch) -> Path:
    """A package of ours: `a` imports `b` in a function, nobody imports `c`."""
    root = tmp_path / "atk_made_up"
    root.mkdir()
    (root / "__init__.py").write_text("")
    (root / "a.py").write_text(
        "import json\n\n\ndef f():\n    from atk_made_up.b import g\n\n    return g()\n"
    )
    (root / "b.py").write_text('"""Words."""\n\n\ndef g():\n    """More."""\n    return 1  # one\n')
    (root / "c.py").write_text("x = 1\n")
    monkeypatch.setattr(provenance, "PACKAGES", ("atk_made_up",))
    monkeypatch.setattr(provenance, "_root", lambda name: root)
    return root


def version() -> str:
    return provenance.code_version.__wrapped__("atk_made_up", frozenset({"atk_made_up.a"}))


def test_code_counts_as_far_as_it_is_reached_and_words_do_not(package):
    assert set(code_files(["atk_made_up.a"])) == {"atk_made_up.a", "atk_made_up.b"}
    before = version()
    (package / "c.py").write_text("x = 2\n")
    (package / "b.py").write_text('"""Other words."""\n\n# A comment.\ndef g():\n\n    return 1\n')
    assert version() == before
    (package / "b.py").write_text("def g():\n    return 2\n")
    assert version() != before


def test_weights_beside_the_code_count(package):
    before = version()
    (package / "network.safetensors").write_bytes(b"1")
    with_weights = version()
    (package / "network.safetensors").write_bytes(b"2")
    assert len({before, with_weights, version()}) == 3


def test_a_method_reaches_tracker_policy_and_physics_but_neither_nodes_nor_other_tasks():
    reached = code_files(["atk_sim.rollout", "atk_sim.methods.atk", "atk_sim.tasks.sushi"])
    for name in (
        "atk_perception.keypoint_tracker",
        "atk_policy.distillation",
        "atk_policy.safe_motion",
        "atk_sim.world",
    ):
        assert name in reached
    assert not [name for name in reached if name.endswith("_node") or "bench" in name or "report" in name]
    tasks = {name for name in reached if name.startswith("atk_sim.tasks.")}
    assert tasks == {"atk_sim.tasks.sushi", "atk_sim.tasks.protocol"}
