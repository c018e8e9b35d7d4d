"""Make a recording that was cut short readable again, as far as it was written, without the ros2 tools.

For bags after a power cut, a killed recorder or a full disk. The file is changed in place: what follows its last whole
chunk (at most about a megabyte) is cut off. The folder keeps its name; rename NAME.recording to use it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from atk_perception.mcap_file import McapError, recover


def main() -> None:
    """Console entry; the last line of standard output is JSON."""
    parser = argparse.ArgumentParser(
        prog="recover_bag", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="rosbag2 folder with one MCAP file")
    args = parser.parse_args()
    try:
        saved = recover(args.folder)
    except (McapError, OSError) as error:
        raise SystemExit(f"recover_bag: {error}") from error
    print(f"{args.folder}: {saved.duration_s:.1f} s recovered, {saved.lost_bytes} bytes cut off")
    print(json.dumps({"messages": dict(saved.messages), "duration_s": saved.duration_s}))


if __name__ == "__main__":
    main()
