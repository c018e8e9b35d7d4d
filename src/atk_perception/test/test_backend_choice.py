"""A keypoint set is followed with what its policy was trained with, and whoever insists on another is told."""

from __future__ import annotations

import pytest

from atk_perception.backend_choice import BackendChoiceError, Backends, choose_backends, trained_backends


def test_a_set_by_itself_is_followed_with_what_is_usual_or_asked_for(tmp_path):
    assert trained_backends(tmp_path) is None
    assert choose_backends(tmp_path) == (Backends(), "")
    assert choose_backends(tmp_path, tracker="atk") == (Backends(tracker="atk"), "")


@pytest.mark.parametrize("inside", ["", "cameras/left"])
def test_a_run_folder_says_what_its_policy_was_trained_with(tmp_path, inside):
    (tmp_path / "policy.yaml").write_text("format_version: 1\nmatcher: atk\ntracker: lucas_kanade\n")
    folder = tmp_path / inside
    assert choose_backends(folder) == (Backends("atk", "lucas_kanade"), "")
    assert choose_backends(folder, "atk", "lucas_kanade") == (Backends("atk", "lucas_kanade"), "")
    chosen, doubt = choose_backends(folder, matcher="sift")
    assert chosen == Backends("sift", "lucas_kanade")
    assert doubt.startswith("matcher 'sift' instead of 'atk', which the policy in")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", r"policy\.yaml cannot be read: while parsing"),
        ("[]", "'matcher' is None; expected the name"),
        ("matcher: sift\n", "'tracker' is None; expected the name of the tracker"),
        ("matcher: 5\ntracker: atk\n", "'matcher' is 5"),
    ],
)
def test_a_run_folder_that_does_not_say_is_refused(tmp_path, text, message):
    (tmp_path / "policy.yaml").write_text(text)
    with pytest.raises(BackendChoiceError, match=message):
        choose_backends(tmp_path)
