"""A process lives by the clock that was set, and nobody else does."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from atk_sim.settable_clock import SettableClock, missing_compiler

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(bool(missing_compiler()), reason=missing_compiler()),
]

# Every line of input is answered: system clock, steady clock, datetime's.
CHILD = """
import datetime, sys, threading, time
for line in sys.stdin:
    waited = time.monotonic()
    threading.Event().wait(0.05)
    waited = time.monotonic() - waited
    print(time.time(), time.monotonic(), datetime.datetime.now().timestamp(), waited, flush=True)
"""


@pytest.mark.parametrize("ahead_s", [30.0, -30.0])
def test_a_clock_that_is_set_jumps_for_its_processes_alone(tmp_path, ahead_s):
    clock = SettableClock(tmp_path)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **clock.environment},
    )

    def ask() -> tuple[float, float, float, float]:
        child.stdin.write("\n")
        child.stdin.flush()
        now, steady, again, waited = (float(word) for word in child.stdout.readline().split())
        return now - time.time(), steady - time.monotonic(), again - time.time(), waited

    try:
        before = ask()
        clock.set(round(ahead_s * 1e9))
        after = ask()
        clock.set(0)
        back = ask()
    finally:
        child.stdin.close()
        child.wait(timeout=10)
    for offset_s, (now, steady, again, waited) in ((0.0, before), (ahead_s, after), (0.0, back)):
        assert now == pytest.approx(offset_s, abs=1.0)
        assert again == pytest.approx(offset_s, abs=1.0)
        assert steady == pytest.approx(0.0, abs=1.0)
        assert waited < 5.0


def test_waits_until_a_date_end_by_the_machines_clock(tmp_path):
    """A thousand milliseconds are as long as before, in the functions that take the date of their end."""
    clock = SettableClock(tmp_path)
    source = tmp_path / "wait.c"
    source.write_text(
        """
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <time.h>
int main(void) {
  pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t c = PTHREAD_COND_INITIALIZER;
  sem_t s;
  struct timespec until;
  sem_init(&s, 0, 0);
  pthread_mutex_lock(&m);
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += 1;
  int a = pthread_cond_timedwait(&c, &m, &until);
  until.tv_sec += 1;
  int b = sem_timedwait(&s, &until);
  until.tv_sec += 1;
  int d = pthread_mutex_timedlock(&m, &until);
  printf("%d %d %d", a, b, d);
}
"""
    )
    program = tmp_path / "wait"
    subprocess.run(["cc", "-o", program, source, "-lpthread"], check=True)
    for ahead_s in (100.0, -100.0):
        clock.set(round(ahead_s * 1e9))
        started = time.monotonic()
        done = subprocess.run(
            [program], env={**os.environ, **clock.environment}, capture_output=True, text=True, timeout=30
        )
        assert done.stdout == "110 -1 110"  # ETIMEDOUT, and -1 of the semaphore
        assert 2.5 < time.monotonic() - started < 20.0
