"""What the ranks are told to do after an update, in a real group of one."""

import math
import time

import pytest

from recipes.training.notices import Notices, Order


def notices(leaving_at=None, stop=False, every_s=0.0):
    return Notices(stop_requested=lambda: stop, leaving_at=lambda: leaving_at, every_s=every_s)


def test_nothing_happens_without_a_notice(process_group):
    assert notices().poll(writing=False, update_s=1.0, checkpoint_s=1.0) == Order.GO_ON


def test_a_wish_to_stop_goes_before_a_node_that_leaves(process_group):
    assert notices(leaving_at=time.time() + 100, stop=True).poll(False, 1.0, 1.0) == Order.STOP


def test_checkpoints_follow_each_other_until_the_deadline_is_near(process_group):
    heard = notices(leaving_at=time.time() + 100)
    assert heard.poll(writing=False, update_s=1.0, checkpoint_s=1.0) == Order.SAVE
    assert heard.poll(writing=True, update_s=1.0, checkpoint_s=1.0) == Order.GO_ON
    assert heard.poll(writing=False, update_s=1.0, checkpoint_s=1.0) == Order.SAVE
    # 2 s and three times an update and a checkpoint of 33 s are more than is left.
    assert heard.poll(writing=True, update_s=1.0, checkpoint_s=33.0) == Order.HOLD


def test_both_are_asked_for_only_so_often(process_group):
    heard = notices(leaving_at=time.time() + 100, every_s=0.2)
    assert heard.poll(False, 0.0, 0.0) == Order.GO_ON
    time.sleep(0.25)
    assert heard.poll(False, 0.0, 0.0) == Order.SAVE
    assert heard.poll(False, 0.0, 0.0) == Order.SAVE, "what is known needs no asking"


def test_a_notice_without_a_deadline_means_two_minutes(process_group):
    heard = notices(leaving_at=math.inf)
    heard.poll(False, 0.0, 0.0)
    first = heard.deadline
    assert first == pytest.approx(time.time() + 120, abs=5)
    heard.poll(False, 0.0, 0.0)
    assert heard.deadline == first, "counted from the first time it was heard"


def test_a_second_node_may_leave_earlier(process_group):
    deadlines = [time.time() + 100, time.time() + 50, time.time() + 70]
    heard = Notices(leaving_at=lambda: deadlines.pop(0), every_s=0.0)
    second = deadlines[1]
    for _ in range(3):
        heard.poll(True, 0.0, 0.0)
    assert heard.deadline == second


def test_the_wait_ends_when_nothing_comes_of_it_and_the_notice_is_done_with(process_group):
    heard = notices(leaving_at=time.time() + 0.5)
    assert heard.poll(False, 0.0, 0.0) == Order.HOLD
    begin = time.monotonic()
    assert heard.wait_for_the_end(limit_s=0.5) is False
    assert time.monotonic() - begin >= 0.5
    assert heard.poll(False, 0.0, 0.0) == Order.GO_ON


def test_the_wait_ends_with_a_wish_to_stop(process_group):
    heard = notices(leaving_at=time.time() + 100)
    heard.poll(False, 0.0, 0.0)
    heard.stop_requested = lambda: True
    assert heard.wait_for_the_end() is True
