"""Weights of others are fetched once, checked always, and asked for by the command that gets them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from atk_perception import get_weights
from atk_perception.public_models import (
    MODELS,
    NOTE,
    BackendError,
    PublicModel,
    find_weights,
    package,
    weights_root,
    weights_version,
)
from atk_perception.registry import (
    DEFAULT_MATCHER,
    DEFAULT_TRACKER,
    MATCHERS,
    TRACKERS,
    make_matcher,
    make_tracker,
)

CONTENT = {"config.json": b"{}", "nested/model.safetensors": b"weights of a test"}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATK_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublicModel:
    """A model whose publisher is a folder."""
    folder = tmp_path / "publisher"
    for file, content in CONTENT.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)
    pinned = hashlib.sha256(CONTENT["nested/model.safetensors"]).hexdigest()
    files = {"config.json": "", "nested/model.safetensors": pinned}
    model = PublicModel(folder.as_uri(), files, size_mb=1, licence="Apache-2.0")
    monkeypatch.setitem(MODELS, "example", model)
    return model


def test_what_is_fetched_is_found_and_noted(root: Path, published: PublicModel) -> None:
    get_weights.main(["example"])
    assert find_weights("example") == root / "example"
    for file, content in CONTENT.items():
        assert (root / "example" / file).read_bytes() == content
    note = json.loads((root / "example" / NOTE).read_text())
    assert note["source"] == published.source
    assert note["sha256"] == {file: hashlib.sha256(content).hexdigest() for file, content in CONTENT.items()}


def test_missing_weights_are_answered_with_the_command_and_the_licence(
    root: Path, published: PublicModel
) -> None:
    with pytest.raises(BackendError, match=r"get_weights example' \(1 MB, licence Apache-2.0\).*ATK_WEIGHTS"):
        find_weights("example")


@pytest.mark.parametrize("file", list(CONTENT))
def test_a_byte_that_changed_since_is_noticed_and_fetched_again(
    root: Path, published: PublicModel, file: str
) -> None:
    get_weights.main(["example"])
    (root / "example" / file).write_bytes(b"x" + CONTENT[file][1:])
    with pytest.raises(BackendError, match=r"damaged.*get_weights example"):
        find_weights("example")
    get_weights.main(["example"])
    find_weights("example")


def test_what_does_not_have_the_pinned_checksum_is_not_installed(
    root: Path, published: PublicModel, tmp_path: Path
) -> None:
    (tmp_path / "publisher" / "nested" / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(SystemExit, match=r"expected [0-9a-f]{64}.*not installed"):
        get_weights.main(["example"])
    assert not list((root / "example" / "nested").iterdir())
    with pytest.raises(BackendError, match="lacks nested/model"):
        find_weights("example")


def test_a_publisher_that_does_not_answer_is_named(
    root: Path, published: PublicModel, tmp_path: Path
) -> None:
    (tmp_path / "publisher" / "config.json").unlink()
    with pytest.raises(SystemExit, match=r"publisher/config\.json could not be fetched"):
        get_weights.main(["example"])


def test_own_weights_put_there_by_hand_are_taken_as_they_are(root: Path, published: PublicModel) -> None:
    for file in published.files:
        (root / "example" / file).parent.mkdir(parents=True, exist_ok=True)
        (root / "example" / file).write_bytes(b"mine")
    assert find_weights("example") == root / "example"


def test_a_note_that_cannot_be_read_is_named(root: Path, published: PublicModel) -> None:
    get_weights.main(["example"])
    (root / "example" / NOTE).write_text("[]")
    with pytest.raises(BackendError, match=NOTE):
        find_weights("example")


def test_other_weights_are_another_version(root: Path, published: PublicModel) -> None:
    before = weights_version("example")
    get_weights.main(["example"])
    assert weights_version("example") != before
    assert weights_version("sift") == ""


def test_without_a_variable_weights_lie_in_the_users_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ATK_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights_root() == tmp_path / "atk" / "weights"


def test_the_list_says_what_is_here(
    root: Path, published: PublicModel, capsys: pytest.CaptureFixture[str]
) -> None:
    get_weights.main(["example"])
    get_weights.main([])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("example") and line.endswith(str(root / "example")) for line in lines)
    assert any(line.startswith("dift") and line.endswith("not installed") for line in lines)


def test_an_unknown_model_is_refused_with_the_known_ones(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        get_weights.main(["resnet"])
    assert "dinov2" in capsys.readouterr().err


def test_a_missing_package_is_answered_with_how_to_get_it() -> None:
    with pytest.raises(BackendError, match=r"no_such_package cannot be imported.*pip install it"):
        package("no_such_package.part", "pip install it")


@pytest.mark.parametrize("name", sorted(set(MATCHERS) & set(MODELS)))
def test_a_public_matcher_without_weights_says_how_to_get_them(root: Path, name: str) -> None:
    with pytest.raises(BackendError, match=f"get_weights {name}'"):
        make_matcher(name)


@pytest.mark.parametrize("name", sorted(set(TRACKERS) & set(MODELS)))
def test_a_public_tracker_without_weights_says_how_to_get_them(root: Path, name: str) -> None:
    with pytest.raises(BackendError, match=f"get_weights {name}'"):
        make_tracker(name)


def test_every_public_model_serves_a_backend_under_its_own_licence_and_is_no_default() -> None:
    for name, model in MODELS.items():
        backend = MATCHERS.get(name) or TRACKERS[name]
        assert backend.licence == model.licence
        assert backend.needs_weights
        assert name not in (DEFAULT_MATCHER, DEFAULT_TRACKER)
        assert all(len(value) in (0, 64) for value in model.files.values())
