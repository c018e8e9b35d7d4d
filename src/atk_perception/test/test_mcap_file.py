"""What was written before a cut is read again; the file says by itself which robot it is of."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from bag_writing import ROBOT, write_demonstration
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from atk_perception.frames import BagError, bag_label, bag_messages, bag_robot, check_bag, read_frames
from atk_perception.mcap_file import McapError, mcap_metadata, recover
from atk_perception.recording import DemonstrationWriter, RecordingError
from atk_perception.robot_description import RobotDescription

# Of noise, so that 30 images fill several chunks of a mebibyte.
LARGE = (200, 300)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """(topics, [(topic, log time, CDR bytes)]) of a demonstration of four chunks."""
    bag, _ = write_demonstration(tmp_path_factory.mktemp("rows") / "source", steps=25, image_size=LARGE)
    return recorded_rows(bag)


def recorded(path: Path, rows) -> Path:
    topics, messages = rows
    writer = DemonstrationWriter(path, topics, ROBOT)
    for row in messages:
        writer.write(*row)
    assert writer.keep().ok
    return path


def texts(bag: Path) -> list[tuple[str, int]]:
    return [(topic, log_ns) for topic, log_ns, _ in bag_messages(bag)]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_file_cut_anywhere_is_readable_up_to_its_last_chunk(tmp_path, rows, share):
    bag = recorded(tmp_path / "one", rows)
    whole = texts(bag)
    (file,) = bag.glob("*.mcap")
    data = file.read_bytes()
    file.write_bytes(data[: round(share * len(data))])
    (bag / "metadata.yaml").unlink()
    saved = recover(bag)
    read = texts(bag)
    assert read == whole[: len(read)]
    assert len(read) == sum(saved.messages.values())
    assert saved.lost_bytes < 2 * 2**20
    assert len(read) > (share - 0.35) * len(whole)
    assert list(read_frames(bag, ROBOT))


def test_a_whole_file_is_left_alone(tmp_path, rows):
    bag = recorded(tmp_path / "one", rows)
    (file,) = bag.glob("*.mcap")
    before = file.read_bytes()
    (bag / "metadata.yaml").unlink()
    assert recover(bag).lost_bytes == 0
    assert file.read_bytes() == before
    assert check_bag(bag, ROBOT).ok
    assert (bag_robot(bag), bag_label(bag)) == (ROBOT, "success")


def test_a_compressed_file_is_recovered_too(tmp_path, rows):
    topics, messages = rows
    from bag_writing import TYPES

    bag = tmp_path / "zstd"
    writer = Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        connections = {t: writer.add_connection(f"/{t}", kind, typestore=TYPES) for t, kind in topics.items()}
        for topic, log_ns, cdr in messages:
            writer.write(connections[topic], log_ns, cdr)
    whole = texts(bag)
    (file,) = bag.glob("*.mcap")
    file.write_bytes(file.read_bytes()[:-2000])
    (bag / "metadata.yaml").unlink()
    recover(bag)
    read = texts(bag)
    assert read == whole[: len(read)]
    assert len(read) > len(whole) // 2


def test_a_killed_recorder_leaves_a_recording_that_the_command_recovers(tmp_path, rows):
    """The command, on what `kill -9` leaves."""
    topics, messages = rows
    writer = DemonstrationWriter(tmp_path / "one", topics, ROBOT)
    for row in messages:
        writer.write(*row)
    copy = Path(shutil.copytree(writer.partial, tmp_path / "killed"))
    with pytest.raises(BagError, match=r"recover_bag killed"):
        list(read_frames(copy, ROBOT))
    code = "from atk_perception.recover_command import main; main()"
    done = subprocess.run([sys.executable, "-c", code, str(copy)], capture_output=True, text=True, check=True)
    assert '"messages"' in done.stdout.splitlines()[-1]
    assert list(read_frames(copy, ROBOT))


@pytest.mark.parametrize("content", [b"", b"no recording at all", b"\x89MCAP0\r\n"])
def test_what_is_no_recording_is_refused(tmp_path, content):
    (tmp_path / "x.mcap").write_bytes(content)
    with pytest.raises(McapError, match=r"x\.mcap"):
        recover(tmp_path)


def test_the_file_itself_says_its_robot_and_label(tmp_path, rows):
    """Also when metadata.yaml and robot.yaml were left behind, or rewritten by a tool that forgets them."""
    bag = recorded(tmp_path / "one", rows)
    (bag / "robot.yaml").unlink()
    (file,) = bag.glob("*.mcap")
    stored = yaml.safe_load(mcap_metadata(file)["rosbag2"]["serialized_metadata"])["custom_data"]
    assert RobotDescription.parse(stored["atk_robot_file"], "test") == ROBOT
    metadata = yaml.safe_load((bag / "metadata.yaml").read_text())
    metadata["rosbag2_bagfile_information"]["custom_data"] = None
    (bag / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    assert bag_robot(bag) == ROBOT
    assert bag_label(bag) == "success"


FULL = """
import resource, sys
from pathlib import Path
from bag_writing import ROBOT
from atk_perception.recording import DemonstrationWriter, RecordingError
from test_mcap_file import recorded_rows
topics, messages = recorded_rows(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
writer = DemonstrationWriter(Path(sys.argv[2]), topics, ROBOT)
try:
    for row in messages:
        writer.write(*row)
    writer.keep()
except RecordingError as error:
    print(error)
"""


def recorded_rows(bag: Path):
    with AnyReader([bag]) as reader:
        topics = {c.topic.lstrip("/"): c.msgtype for c in reader.connections}
        return topics, [(c.topic.lstrip("/"), ns, bytes(raw)) for c, ns, raw in reader.messages()]


@pytest.mark.parametrize("share", [0.55, 0.7, 1.0])
def test_when_the_file_cannot_grow_what_was_written_stays_readable(tmp_path, rows, share):
    """The kernel refuses to write past the limit, in the middle of a chunk or of the file's end."""
    source, _ = write_demonstration(tmp_path / "source", steps=25, image_size=LARGE)
    (file,) = source.glob("*.mcap")
    limit = round(share * file.stat().st_size) - 1000
    command = [sys.executable, "-c", FULL, str(source), str(tmp_path / "one"), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=True)
    assert "the recording has ended: File too large" in done.stdout, done.stderr
    assert "are readable in" in done.stdout
    partial = tmp_path / "one.recording"
    whole, read = texts(source), texts(partial)
    assert read == whole[: len(read)]
    # A chunk is a mebibyte, and one more may have made room for the end.
    assert len(read) > (limit - 2.4 * 2**20) / file.stat().st_size * len(whole)
    assert read
    assert bag_robot(partial) == ROBOT
    assert list(read_frames(partial, ROBOT))
    with pytest.raises(RecordingError, match="exists already"):
        DemonstrationWriter(tmp_path / "one", rows[0], ROBOT)
