"""Arrays on disk of which training reads the rows that it draws, and holds no others.

By plain reads, not by a memory map: what a process has touched of a map counts as its memory, and the kernel maps sixteen
pages around each touched one, so that random rows soon bring in the whole file. A read leaves nothing but the batch; what is
read again comes from the operating system's file cache, which it can take back at any time.
"""

from __future__ import annotations

import os
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

BLOCK_BYTES = 1 << 24  # of a pass over all rows


class StoredRows:
    """An (M, *row) array in a file, whose rows are read as float32 tensors. It can be handed to another process.

    Args:
        path: written by `RowWriter`; it must stay there.
        row: shape of a row.
        dtype: of the file.

    Raises:
        OSError: no such file.
        ValueError: the file does not hold whole rows.
    """

    def __init__(self, path: Path, row: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._path, self._row, self._dtype = path, row, np.dtype(dtype)
        self._row_bytes = self._dtype.itemsize * int(np.prod(row))
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        size = os.fstat(self._file).st_size
        if not self._row_bytes or size % self._row_bytes:
            raise ValueError(
                f"{path} has {size} bytes, which is no whole number of {row} rows of {self._dtype}; delete it"
            )
        self.shape = (size // self._row_bytes, *row)

    def __reduce__(self) -> tuple[type[StoredRows], tuple[Path, tuple[int, ...], npt.DTypeLike]]:
        return StoredRows, (self._path, self._row, self._dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Tensor) -> Tensor:
        """(..., *row) float32 at the rows `index` (...,), each from 0 to M - 1."""
        flat = index.numpy().ravel()
        found = np.empty((len(flat), *self._row), self._dtype)
        into = found.data.cast("B") if len(flat) else memoryview(b"")
        size = self._row_bytes
        # Rows that follow each other, as those of a history do, are one read.
        starts = [0, *(np.flatnonzero(np.diff(flat) != 1) + 1).tolist(), len(flat)]
        first = flat[starts[:-1]].tolist() if len(flat) else []
        for begin, end, row in zip(starts, starts[1:], first, strict=False):
            self._read(into[begin * size : end * size], row)
        return torch.from_numpy(found.astype(np.float32, copy=False)).reshape(*index.shape, *self._row)

    def columns(self, keep: Tensor) -> Tensor:
        """(M, K, ...) float32 in memory: of every row the entries where `keep` (the row's first axis) is true."""
        chosen = np.flatnonzero(keep.numpy())
        found = np.empty((len(self), len(chosen), *self._row[1:]), np.float32)
        step = max(1, BLOCK_BYTES // self._row_bytes)
        for begin in range(0, len(self), step):
            rows = np.empty((min(step, len(self) - begin), *self._row), self._dtype)
            self._read(rows.data.cast("B"), begin)
            found[begin : begin + len(rows)] = rows[:, chosen]
        return torch.from_numpy(found)

    def _read(self, into: memoryview, row: int) -> None:
        """Fill `into` from the row `row` on."""
        offset = row * self._row_bytes
        while into:
            count = os.preadv(self._file, [into], offset)
            if not count:
                raise IndexError(f"row {row} of {self._path}, which has {len(self)} rows, is not there")
            into, offset = into[count:], offset + count


class RowWriter:
    """Appends rows to a file that will be a `StoredRows`; see `writing`."""

    def __init__(self, stream: IO[bytes], path: Path, dtype: npt.DTypeLike) -> None:
        self._stream, self._path, self._dtype = stream, path, np.dtype(dtype)
        self._row: tuple[int, ...] = ()

    def append(self, rows: npt.NDArray[np.generic]) -> None:
        """Write (m, *row)."""
        self._row = rows.shape[1:]
        self._stream.write(np.ascontiguousarray(rows, self._dtype).data)

    def stored(self) -> StoredRows:
        """What was written, once `writing` has ended."""
        return StoredRows(self._path, self._row, self._dtype)


@contextmanager
def writing(path: Path, dtype: npt.DTypeLike) -> Iterator[RowWriter]:
    """A writer of a new file; what an interrupted one left is written over.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        yield RowWriter(stream, path, dtype)


def discard(folder: Path) -> None:
    """Delete a folder of such files, if it is there. Whoever has one open can still read it."""
    shutil.rmtree(folder, ignore_errors=True)
