"""Overlapping chunks become one action per period; outside every chunk there is none."""

from __future__ import annotations

import numpy as np
import pytest

from atk_policy.action_queue import ActionQueue

PERIOD_NS = 50_000_000


def chunk(value: float, horizon: int = 4) -> np.ndarray:
    return np.full((horizon, 2), value) + np.arange(horizon)[:, None]


def test_an_empty_or_expired_queue_has_no_action():
    queue = ActionQueue(PERIOD_NS, 0.1, memory=4)
    assert queue.action_at(0) is None
    queue.add(0, chunk(0.0))
    assert queue.action_at(4 * PERIOD_NS) is None
    assert queue.action_at(-PERIOD_NS) is None


def test_the_action_is_the_one_for_its_time():
    queue = ActionQueue(PERIOD_NS, 0.1, memory=4)
    queue.add(1_000, chunk(10.0))
    assert queue.action_at(1_000 + 2 * PERIOD_NS + PERIOD_NS // 3)[0] == 12.0


def test_overlapping_chunks_are_weighted_by_age():
    queue = ActionQueue(PERIOD_NS, 0.5, memory=4)
    queue.add(0, chunk(0.0))
    queue.add(PERIOD_NS, chunk(100.0))
    old, new = 1.0, 100.0
    weight = np.exp(-0.5)
    assert queue.action_at(PERIOD_NS)[0] == pytest.approx((weight * old + new) / (weight + 1))


def test_a_large_decay_trusts_the_newest_alone():
    queue = ActionQueue(PERIOD_NS, 50.0, memory=4)
    queue.add(0, chunk(0.0))
    queue.add(PERIOD_NS, chunk(100.0))
    assert queue.action_at(PERIOD_NS)[0] == pytest.approx(100.0)


def test_a_plan_ends_where_no_chunk_reaches_and_clear_forgets():
    queue = ActionQueue(PERIOD_NS, 0.0, memory=4)
    queue.add(0, chunk(5.0))
    assert [a[0] for a in queue.plan_from(PERIOD_NS, 10)] == [6.0, 7.0, 8.0]
    queue.clear()
    assert queue.plan_from(0, 3) == []
