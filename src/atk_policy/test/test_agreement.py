"""Agreement of two sets: one partner per point, on the same body, within 3% of the diagonal."""

from __future__ import annotations

import pytest

from atk_policy.agreement import agreement, mean_agreement

DIAGONAL = 800.0  # 640 x 480: partners are within 24 px


def test_equal_sets_agree_fully_in_any_order():
    points = [[10, 10], [100, 10], [200, 50]]
    assert agreement(points, points[::-1], DIAGONAL, "abc", "cba") == 1.0


def test_far_points_and_other_bodies_do_not_agree():
    assert agreement([[0, 0]], [[25, 0]], DIAGONAL, "a", "a") == 0.0
    assert agreement([[0, 0]], [[23, 0]], DIAGONAL, "a", "a") == 1.0
    assert agreement([[0, 0]], [[0, 0]], DIAGONAL, "a", "b") == 0.0


def test_a_cluster_has_one_partner_in_a_single_point():
    cluster, single = [[0, 0], [2, 0], [0, 2], [2, 2]], [[1, 1]]
    assert agreement(cluster, single, DIAGONAL, "aaaa", "a") == pytest.approx(2 / 5)
    assert agreement(single, cluster, DIAGONAL, "a", "aaaa") == pytest.approx(2 / 5)


def test_as_many_pairs_as_possible_are_made():
    # Greedily, 0 would take 15 and leave 30 without a partner.
    assert agreement([[0, 0], [30, 0]], [[15, 0], [-10, 0]], DIAGONAL, "aa", "aa") == 1.0


def test_the_mean_is_over_all_pairs():
    sets = [[[0, 0]], [[0, 0]], [[300, 0]]]
    assert mean_agreement(sets, DIAGONAL, ["a", "a", "a"]) == pytest.approx(1 / 3)
    assert mean_agreement(sets[:1], DIAGONAL, ["a"]) == 1.0


def test_what_cannot_be_compared_is_said():
    with pytest.raises(ValueError, match="0 and 1 points"):
        agreement([], [[0, 0]], DIAGONAL, "", "a")
    with pytest.raises(ValueError, match="bodies"):
        agreement([[0, 0]], [[0, 0]], DIAGONAL, "ab", "a")
