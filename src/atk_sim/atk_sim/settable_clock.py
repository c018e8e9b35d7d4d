"""A system clock that can be set, for the processes that are started with it: what `date -s` does to a machine, without its rights.

A small library that is loaded before all others adds an offset, which they all read from one file, to what the system
says that time is. Steady clocks and the machine's own clock stay as they are.
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
from pathlib import Path

# Who waits until a time of the clock that was set must be woken at that of the machine. Steady times, which the same
# functions may be given, are those since the machine was started: far below a date.
SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t none = 0;
static const volatile int64_t *offset_ns = &none;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("ATK_CLOCK_OFFSET");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *at = mmap(0, sizeof none, PROT_READ, MAP_SHARED, file, 0);
  if (at != MAP_FAILED) offset_ns = at;
  close(file);
}

static struct timespec shifted(struct timespec t, int64_t by_ns) {
  int64_t ns = t.tv_sec * 1000000000LL + t.tv_nsec + by_ns;
  return (struct timespec){ns / 1000000000LL, ns % 1000000000LL};
}

static struct timespec real(const struct timespec *t) {
  return t->tv_sec > 1000000000 ? shifted(*t, -*offset_ns) : *t;
}

/* glibc has an older pthread_cond_timedwait of the same name, which dlsym would find. */
static void *next(const char *name) {
  void *found = dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2");
  return found ? found : dlsym(RTLD_NEXT, name);
}

#define NEXT(name) static __typeof__(name) *next_##name; if (!next_##name) next_##name = next(#name)

int clock_gettime(clockid_t id, struct timespec *t) {
  NEXT(clock_gettime);
  int failed = next_clock_gettime(id, t);
  if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) *t = shifted(*t, *offset_ns);
  return failed;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
  struct timespec now;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
  *t = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
  return 0;
}

time_t time(time_t *t) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (t) *t = now.tv_sec;
  return now.tv_sec;
}

int pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *t) {
  NEXT(pthread_cond_timedwait);
  struct timespec until = real(t);
  return next_pthread_cond_timedwait(c, m, &until);
}

int pthread_mutex_timedlock(pthread_mutex_t *m, const struct timespec *t) {
  NEXT(pthread_mutex_timedlock);
  struct timespec until = real(t);
  return next_pthread_mutex_timedlock(m, &until);
}

int sem_timedwait(sem_t *s, const struct timespec *t) {
  NEXT(sem_timedwait);
  struct timespec until = real(t);
  return next_sem_timedwait(s, &until);
}
"""


class SettableClock:
    """A clock for processes that are started with `environment`; it begins as the machine's.

    Args:
        folder: a few small files are written here.

    Raises:
        RuntimeError: there is no C compiler, or it refused.
    """

    def __init__(self, folder: Path) -> None:
        compiler = missing_compiler()
        if compiler:
            raise RuntimeError(compiler)
        folder.mkdir(parents=True, exist_ok=True)
        source, self._library = folder / "settable_clock.c", folder / "settable_clock.so"
        source.write_text(SOURCE)
        command = [
            "cc",
            "-O2",
            "-shared",
            "-fPIC",
            "-o",
            str(self._library),
            str(source),
            "-ldl",
            "-lpthread",
        ]
        compiled = subprocess.run(command, capture_output=True, text=True, check=False)
        if compiled.returncode:
            raise RuntimeError(f"the settable clock does not compile here: {compiled.stderr[-500:]}")
        self._file = folder / "clock_offset"
        self._file.write_bytes(bytes(mmap.PAGESIZE))

    @property
    def environment(self) -> dict[str, str]:
        """Variables of a process that is to live by this clock; its children do, too."""
        before = os.environ.get("LD_PRELOAD", "")
        return {
            "LD_PRELOAD": ":".join(filter(None, [str(self._library.absolute()), before])),
            "ATK_CLOCK_OFFSET": str(self._file.absolute()),
        }

    def set(self, ahead_ns: int) -> None:
        """From now on it is so much ahead of the machine's [ns]; negative: behind."""
        with self._file.open("r+b") as file, mmap.mmap(file.fileno(), 0) as offset:
            offset[:8] = struct.pack("=q", ahead_ns)  # one store: nobody reads half of it


def missing_compiler() -> str:
    """Why there can be no such clock here, or ''."""
    return "" if shutil.which("cc") else "there is no C compiler ('cc'; apt install gcc)"
