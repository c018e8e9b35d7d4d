"""The little of the MCAP container format that `rosbags` does not offer: what a cut-off file still holds, and metadata.

A recording that was cut short (a full disk, a power cut, a killed process) has no summary at its end, and readers
refuse it. Its records up to the cut are whole. `recover` ends the file after the last whole one, in place, as
'mcap recover' does into a new file, which a full disk has no room for.

Source: the MCAP specification (mcap.dev/spec): records are an opcode byte, a uint64 length and the content.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import yaml

MAGIC = b"\x89MCAP0\r\n"
FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX = 0x02, 0x03, 0x04, 0x05, 0x06, 0x07
METADATA, DATA_END = 0x0C, 0x0F
# "No data checksum" and "no summary": readers then scan the file.
DATA_END_RECORD = struct.pack("<BQI", DATA_END, 4, 0)
FOOTER_RECORD = struct.pack("<BQQQI", FOOTER, 20, 0, 0, 0)
ROSBAG2_VERSION = 9


class McapError(ValueError):
    """A file is no MCAP recording, or holds nothing that can be recovered; the message names it."""


@dataclass
class Content:
    """What a file holds up to its last whole record.

    Attributes:
        types: channel id -> (topic, message type).
        counts: channel id -> messages.
        first_ns, last_ns: log times of the first and last message; 0 without one.
        cuts: [(offset, counts, first, last)] after each chunk: where the file can be ended.
    """

    types: dict[int, tuple[str, str]] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)
    first_ns: int = 0
    last_ns: int = 0
    cuts: list[tuple[int, dict[int, int], int, int]] = field(default_factory=list)

    def note(self, channel: int, log_ns: int) -> None:
        """One message."""
        self.first_ns = log_ns if not self.counts else min(self.first_ns, log_ns)
        self.last_ns = max(self.last_ns, log_ns)
        self.counts[channel] = self.counts.get(channel, 0) + 1

    def cut(self, offset: int) -> None:
        """The file may end at `offset`."""
        self.cuts.append((offset, dict(self.counts), self.first_ns, self.last_ns))


@dataclass(frozen=True)
class Recovered:
    """What `recover` saved: messages by topic, the time they span [s], and how many bytes were cut off."""

    messages: Mapping[str, int]
    duration_s: float
    lost_bytes: int


def mcap_metadata(path: Path) -> dict[str, dict[str, str]]:
    """The metadata records of a file, by name; what rosbag2 itself stores stands under 'rosbag2'.

    Raises:
        McapError: no MCAP file.
        OSError: it cannot be read.
    """
    found: dict[str, dict[str, str]] = {}
    with path.open("rb") as stream:
        for opcode, start, length in _records(stream, path):
            if opcode == METADATA:
                stream.seek(start)
                content = BytesIO(stream.read(length))
                name = _text(content)
                end = _number(content, "<I") + content.tell()
                entries = found.setdefault(name, {})
                while content.tell() < end:
                    key = _text(content)
                    entries[key] = _text(content)
    return found


def recover(folder: Path, custom_data: Mapping[str, str] | None = None) -> Recovered:
    """Make the recording in a rosbag2 folder readable again, as far as it was written.

    The file is shortened to its last whole chunk and ended; metadata.yaml is written anew. A file with its end is left
    alone but for a missing metadata.yaml.

    Args:
        custom_data: for metadata.yaml; by default what the file itself says.

    Raises:
        McapError: the folder holds no MCAP file or several, or nothing was written.
        OSError: not even the few bytes of the end could be written.
    """
    files = sorted(folder.glob("*.mcap"))
    if len(files) != 1:
        raise McapError(f"{folder} holds {len(files)} MCAP files; a recording to recover has exactly one")
    (path,) = files
    size = path.stat().st_size
    with path.open("rb") as stream:
        content = _scan(stream, path)
        stream.seek(max(0, size - len(MAGIC)))
        whole = size > 2 * len(MAGIC) and stream.read() == MAGIC
    if not content.cuts:
        raise McapError(f"{path} was cut off before its first chunk ({size} bytes); nothing can be recovered")
    while True:
        offset, content.counts, content.first_ns, content.last_ns = content.cuts.pop()
        try:
            if not whole:
                _end_at(path, offset)
            _write_metadata(folder, path, content, custom_data)
            break
        except OSError:
            # The disk has not even room for the end: the last chunk makes some.
            if whole or not content.cuts:
                raise
    messages: dict[str, int] = {}
    for channel, count in content.counts.items():
        topic = content.types[channel][0].lstrip("/")
        messages[topic] = messages.get(topic, 0) + count
    lost = 0 if whole else max(0, size - offset)
    return Recovered(messages, (content.last_ns - content.first_ns) / 1e9, lost)


def _end_at(path: Path, offset: int) -> None:
    with path.open("r+b") as stream:
        stream.truncate(offset)
        stream.seek(offset)
        stream.write(DATA_END_RECORD + FOOTER_RECORD + MAGIC)


def _write_metadata(
    folder: Path, path: Path, content: Content, custom_data: Mapping[str, str] | None
) -> None:
    """metadata.yaml as rosbag2 writes it; its readers take names, types and counts from there."""
    target = folder / "metadata.yaml"
    if target.is_file() and target.stat().st_size:
        return
    if custom_data is None:
        stored = mcap_metadata(path).get("rosbag2", {}).get("serialized_metadata", "")
        custom_data = (yaml.safe_load(stored) or {}).get("custom_data") or {}
    total = sum(content.counts.values())
    duration = {"nanoseconds": content.last_ns - content.first_ns}
    start = {"nanoseconds_since_epoch": content.first_ns}
    information: dict[str, Any] = {
        "version": ROSBAG2_VERSION,
        "storage_identifier": "mcap",
        "relative_file_paths": [path.name],
        "duration": duration,
        "starting_time": start,
        "message_count": total,
        "topics_with_message_count": [
            {
                "topic_metadata": {
                    "name": topic,
                    "type": msgtype,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": [],
                    "type_description_hash": "",
                },
                "message_count": content.counts.get(channel, 0),
            }
            for channel, (topic, msgtype) in sorted(content.types.items())
        ],
        "compression_format": "",
        "compression_mode": "",
        "files": [{"path": path.name, "starting_time": start, "duration": duration, "message_count": total}],
        "custom_data": dict(custom_data) or None,
        "ros_distro": "rosbags",
    }
    target.write_text(yaml.safe_dump({"rosbag2_bagfile_information": information}, sort_keys=False))


def _records(stream: BinaryIO, path: Path) -> Iterator[tuple[int, int, int]]:
    """(opcode, offset of the content, its length) of every whole record of a file."""
    size = stream.seek(0, 2)
    stream.seek(0)
    if stream.read(len(MAGIC)) != MAGIC:
        raise McapError(f"{path} is no MCAP file")
    at = len(MAGIC)
    while at + 9 <= size:
        stream.seek(at)
        opcode, length = struct.unpack("<BQ", stream.read(9))
        at += 9
        if at + length > size:
            return
        yield opcode, at, length
        at += length


def _scan(stream: BinaryIO, path: Path) -> Content:
    content, schemas = Content(), dict[int, str]()
    for opcode, start, length in _records(stream, path):
        if opcode == DATA_END:
            break
        if opcode == CHUNK:
            stream.seek(start)
            inside = _chunk(BytesIO(stream.read(length)), path)
            while header := inside.read(9):
                inner, inner_length = struct.unpack("<BQ", header)
                _take(inner, BytesIO(inside.read(inner_length)), content, schemas)
            content.cut(start + length)
        elif opcode == MESSAGE_INDEX and content.cuts:  # belongs to the chunk before it
            content.cuts.pop()
            content.cut(start + length)
        elif opcode in (SCHEMA, CHANNEL, MESSAGE):  # a file without chunks
            stream.seek(start)
            _take(opcode, BytesIO(stream.read(length)), content, schemas)
            content.cut(start + length)
    return content


def _chunk(record: BytesIO, path: Path) -> BytesIO:
    """The records inside a chunk."""
    record.seek(28)  # start and end time, uncompressed size, checksum
    compression = _text(record)
    size = _number(record, "<Q")
    data = record.read(size)
    if not compression:
        return BytesIO(data)
    if compression == "zstd":
        import zstandard

        return BytesIO(zstandard.ZstdDecompressor().decompressobj().decompress(data))
    if compression == "lz4":
        import lz4.frame

        return BytesIO(lz4.frame.decompress(data))
    raise McapError(f"{path} is compressed with {compression!r}; expected zstd, lz4 or nothing")


def _take(opcode: int, record: BytesIO, content: Content, schemas: dict[int, str]) -> None:
    if opcode == SCHEMA:
        number = _number(record, "<H")
        schemas[number] = _text(record)
    elif opcode == CHANNEL:
        channel, schema = _number(record, "<H"), _number(record, "<H")
        content.types[channel] = (_text(record), schemas.get(schema, ""))
    elif opcode == MESSAGE:
        channel, _, log_ns = struct.unpack("<HIQ", record.read(14))
        content.note(channel, log_ns)


def _number(stream: BytesIO, layout: str) -> int:
    return int(struct.unpack(layout, stream.read(struct.calcsize(layout)))[0])


def _text(stream: BytesIO) -> str:
    return stream.read(_number(stream, "<I")).decode(errors="replace")
