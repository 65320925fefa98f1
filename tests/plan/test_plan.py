"""Every decision of a call, with no I/O: a script answers the plan's steps."""

from __future__ import annotations

import pytest
from scripts import Script, record, request

from cachekit.errors import CacheMiss, TierUnavailable
from cachekit.model import MISS
from cachekit.plan import plan as plans
from cachekit.plan.steps import (
    ALONE,
    BUSY,
    LEAD,
    CallOrigin,
    Failed,
    Join,
    Lease,
    Pause,
    Read,
    Returned,
    Revalidate,
    Share,
    Write,
)
from cachekit.plan.turns import FIRST_PAUSE


def test_a_memory_hit_asks_nobody_else() -> None:
    """A fresh record in memory is the answer; no flight, no other tier."""
    script = Script(read_memory=record())
    assert script.run(plans.plan(request())) == 1
    assert script.kinds() == ["Read"]
    assert script.told() == [("hit", "memory", "")]


def test_a_disk_hit_fills_memory() -> None:
    """What disk has goes back into memory."""
    script = Script(read_disk=record())
    assert script.run(plans.plan(request())) == 1
    assert [s.tier for s in script.steps if isinstance(s, Write)] == ["memory"]


def test_a_miss_is_called_and_stored_slowest_first() -> None:
    """The origin's value is written to IPFS, disk and memory, in this order, and the followers get it before."""
    script = Script(join=LEAD, lease=True, callorigin=Returned(7, 0.5))
    assert script.run(plans.plan(request())) == 7
    assert [s.tier for s in script.steps if isinstance(s, Write)] == ["ipfs", "disk", "memory"]
    shares = [i for i, s in enumerate(script.steps) if isinstance(s, Share)]
    writes = [i for i, s in enumerate(script.steps) if isinstance(s, Write)]
    assert shares[0] < writes[0]


@pytest.mark.parametrize("news", [False, True])
def test_the_disk_is_looked_at_again_where_somebody_stored(news: bool) -> None:
    """After the lease: what was not there before can be there only then. Memory and the team are asked all the same."""
    script = Script(join=LEAD, lease=True, read_disk=record(), callorigin=Returned(7, 0.5))
    assert script.run(plans.plan(request(news=lambda: news), looked=True)) == (1 if news else 7)
    read = [step.tier for step in script.steps if isinstance(step, Read)]
    assert read == (["memory", "disk"] if news else ["memory", "ipfs"])


def test_a_tier_that_is_not_looked_at_again_is_filled_all_the_same() -> None:
    """What the team has is written to the disk, which is known to have nothing, and then to memory."""
    script = Script(join=LEAD, lease=True, read_ipfs=record())
    assert script.run(plans.plan(request(news=lambda: False), looked=True)) == 1
    assert [step.tier for step in script.steps if isinstance(step, Write)] == ["disk", "memory"]


def test_a_failed_tier_is_told_and_stepped_over() -> None:
    """A tier that fails costs an event; the next one answers."""
    script = Script(read_memory=TierUnavailable("x"), read_disk=record())
    assert script.run(plans.plan(request())) == 1
    assert script.told() == [("error", "memory", "unavailable"), ("hit", "disk", "")]
    assert not [s for s in script.steps if isinstance(s, Write)], "a failed tier is not filled"


def test_every_write_may_fail() -> None:
    """The value is returned although no tier took it."""
    script = Script(join=LEAD, lease=True, callorigin=Returned(7, 0.5), write=TierUnavailable("full"))
    assert script.run(plans.plan(request())) == 7
    assert [t for t in script.told() if t[0] == "error"] == [
        ("error", t, "unavailable") for t in ("ipfs", "disk", "memory")
    ]


def test_a_follower_takes_the_leaders_record() -> None:
    """Who joins a flight gets the record and calls nobody."""
    script = Script(join=record())
    assert script.run(plans.plan(request())) == 1
    assert not [s for s in script.steps if isinstance(s, CallOrigin)]
    assert ("coalesced", "", "") in script.told()


def test_a_caller_alone_takes_no_lease() -> None:
    """A re-entrant call goes to the origin without waiting for anybody."""
    script = Script(join=ALONE, callorigin=Returned(3, 0.1))
    assert script.run(plans.plan(request())) == 3
    assert "Lease" not in script.kinds()


def test_another_process_is_waited_for() -> None:
    """While the lease is taken the plan pauses and looks at the disk again."""
    script = Script(join=LEAD, lease=[False, False], read_disk=[None, None, record()])
    assert script.run(plans.plan(request())) == 1
    assert [s.seconds for s in script.steps if isinstance(s, Pause)] == [FIRST_PAUSE, 2 * FIRST_PAUSE]
    assert "CallOrigin" not in script.kinds()


def test_stale_while_revalidate_answers_at_once() -> None:
    """Inside the window the old value is served and one refresh is started."""
    script = Script(read_memory=record(age=70))
    assert script.run(plans.plan(request(stale_while_revalidate=30))) == 1
    assert Revalidate() in script.steps
    assert script.told() == [("stale", "", "revalidating")]


def test_past_the_window_the_origin_is_asked() -> None:
    """Past the window an old value is no answer."""
    script = Script(read_memory=record(age=100), join=LEAD, lease=True, callorigin=Returned(9, 0.1))
    assert script.run(plans.plan(request(stale_while_revalidate=30))) == 9


def test_stale_if_error_stands_in_for_a_failed_origin() -> None:
    """The origin raised, and the old value is inside its window."""
    script = Script(read_disk=record(age=70), join=LEAD, lease=True, callorigin=Failed(OSError("down")))
    assert script.run(plans.plan(request(stale_if_error=3600))) == 1
    assert ("error", "origin", "OSError") in script.told()
    assert script.told()[-1] == ("stale", "", "origin_failed")


def test_no_fallback_without_a_window() -> None:
    """Without stale_if_error the driver is told to let the exception pass."""
    script = Script(read_disk=record(age=70), join=LEAD, lease=True, callorigin=Returned(1, 0.1))
    script.run(plans.plan(request()))
    assert [s.fallback for s in script.steps if isinstance(s, CallOrigin)] == [()]


def test_replay_never_calls() -> None:
    """Mode replay raises CacheMiss after every tier, IPFS included, was asked."""
    script = Script(join=LEAD, lease=True)
    with pytest.raises(CacheMiss):
        script.run(plans.plan(request(mode="replay")))
    assert [s.tier for s in script.steps if isinstance(s, Read)][-1] == "ipfs"
    assert "CallOrigin" not in script.kinds()


def test_read_only_stores_nothing_lasting() -> None:
    """Mode read-only returns the value and writes nothing; a back-fill of memory is allowed."""
    script = Script(join=LEAD, lease=True, callorigin=Returned(1, 0.1))
    assert script.run(plans.plan(request(mode="read-only"))) == 1
    assert "Write" not in script.kinds()
    script = Script(read_ipfs=record(), join=LEAD, lease=True)
    script.run(plans.plan(request(mode="read-only")))
    assert [s.tier for s in script.steps if isinstance(s, Write)] == ["memory"]


def test_refresh_reads_nothing() -> None:
    """Mode refresh goes to the origin and stores."""
    script = Script(join=LEAD, callorigin=Returned(1, 0.1))
    script.run(plans.plan(request(mode="refresh")))
    assert "Read" not in script.kinds()
    assert "Write" in script.kinds()


def test_what_is_not_cacheable_is_returned() -> None:
    """A falsy `cacheable` returns the value, stores nothing, and the reason is told."""
    script = Script(join=LEAD, lease=True, callorigin=Returned(0, 0.1))
    assert script.run(plans.plan(request(cacheable=bool))) == 0
    assert ("skipped", "", "not_cacheable") in script.told()
    assert "Write" not in script.kinds()


def test_what_cannot_be_encoded_sends_followers_alone() -> None:
    """A value with no encoding is returned; those who wait are sent to the origin."""
    script = Script(join=LEAD, lease=True, callorigin=Returned(object(), 0.1))
    script.run(plans.plan(request()))
    assert Share(None) in script.steps
    assert ("skipped", "", "type") in script.told()


def test_a_record_that_cannot_be_decoded_is_a_miss() -> None:
    """A payload that its codec refuses is told and overwritten."""
    script = Script(read_memory=record(b"{"), join=LEAD, lease=True, callorigin=Returned(5, 0.1))
    assert script.run(plans.plan(request())) == 5
    assert ("error", "memory", "undecodable") in script.told()


def test_peek_never_calls() -> None:
    """peek answers MISS rather than ask the origin."""
    script = Script()
    assert script.run(plans.peek(request())) is MISS
    assert script.kinds() == ["Read", "Read", "Read"]


def test_a_busy_refresh_is_skipped() -> None:
    """The background refresh leaves at once where somebody is at it."""
    script = Script(join=BUSY)
    script.run(plans.renew(request()))
    assert script.steps == [Join(wait=False)]


def test_a_refresh_leased_elsewhere_is_skipped() -> None:
    """The background refresh leaves where another process holds the lease."""
    script = Script(join=LEAD, lease=False)
    script.run(plans.renew(request()))
    assert script.steps == [Join(wait=False), Lease()]
