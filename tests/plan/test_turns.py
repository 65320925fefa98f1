"""Whose turn it is between machines, decided without I/O: who announces, who waits and for how long, and what ends that."""

from __future__ import annotations

from typing import Any

import pytest
from scripts import NOW, Script, record, request

from cachekit.errors import TierUnavailable
from cachekit.model import NANOSECONDS
from cachekit.plan import plan as plans
from cachekit.plan.steps import ALONE, BUSY, LEAD, CallOrigin, Claim, Pause, Read, Returned, Waive
from cachekit.plan.turns import FIRST_PAUSE, LONGEST_PAUSE, SETTLING
from cachekit.plan.waiting import STEADY


def scripted(**answers: Any) -> Script:
    return Script(**{"join": LEAD, "lease": True, "callorigin": Returned(7, 0.5), **answers})


def claims(script: Script) -> list[Claim]:
    return [step for step in script.steps if isinstance(step, Claim)]


def pauses(script: Script) -> list[float]:
    return [step.seconds for step in script.steps if isinstance(step, Pause)]


def test_who_leads_the_team_says_so_and_settles_before_it_calls() -> None:
    """Who says it at the same time is heard in between; then the answer counts, and IPFS has been looked at once more."""
    script = scripted(claim=[LEAD, LEAD])
    assert script.run(plans.plan(request(coalesce="team"))) == 7
    assert pauses(script) == [SETTLING]
    assert script.kinds()[-10:-4] == ["Read", "Claim", "Pause", "Read", "Claim", "CallOrigin"]


def test_another_machine_is_waited_for_and_its_value_is_coalesced() -> None:
    """The pauses grow to a tenth of a second; what came is written to the tiers of this machine, and the origin is not asked."""
    script = scripted(claim=[BUSY] * 9, read_ipfs=[*[None] * 8, record()])
    assert script.run(plans.plan(request(coalesce="team"))) == 1
    assert pauses(script)[:2] == [FIRST_PAUSE, 2 * FIRST_PAUSE]
    assert pauses(script)[-1] == LONGEST_PAUSE
    assert script.told()[-1] == ("coalesced", "ipfs", "")
    assert script.kinds()[-3:] == ["Write", "Write", "Share"]


def test_who_was_later_waits() -> None:
    """A claim that somebody else's comes before gives way to it, after the time to settle."""
    script = scripted(claim=[LEAD, BUSY], read_ipfs=[None, None, record()])
    assert script.run(plans.plan(request(coalesce="team"))) == 1


def test_one_of_those_who_wait_leads_when_the_leader_is_gone() -> None:
    """It announces itself and settles, as at the start."""
    script = scripted(claim=[BUSY, BUSY, LEAD, LEAD])
    assert script.run(plans.plan(request(coalesce="team"))) == 7
    assert pauses(script) == [FIRST_PAUSE, 2 * FIRST_PAUSE, SETTLING]


def test_who_was_waited_for_in_vain_is_followed_by_nobody() -> None:
    """Alone means that the origin is called at once."""
    script = scripted(claim=[BUSY, ALONE])
    assert script.run(plans.plan(request(coalesce="team"))) == 7
    assert pauses(script) == [FIRST_PAUSE]


@pytest.mark.parametrize(("nested", "seconds"), [(True, 3.0), (False, 3.0 * STEADY)])
def test_the_wait_ends_with_the_patience(nested: bool, seconds: float) -> None:
    """Whatever is answered: sooner for a call that others may wait for, because they may be those it waits for."""
    script = scripted(claim=[BUSY] * 10_000)
    assert script.run(plans.plan(request(coalesce="team", patience=3.0, nested=nested))) == 7
    assert seconds <= sum(pauses(script)) < seconds + 2 * LONGEST_PAUSE
    assert [claim.late for claim in claims(script)[-2:]] == [False, True]


def test_a_daemon_that_takes_its_time_spends_the_patience_too() -> None:
    """Of the clock, not of the pauses alone."""
    instants = iter(NOW + second * NANOSECONDS for second in range(10_000))
    script = scripted(claim=[BUSY] * 10_000)
    script.run(plans.plan(request(coalesce="team", patience=3.0, nested=True, clock=lambda: next(instants))))
    assert len(claims(script)) < 6


def test_who_waits_has_time_for_the_value_to_come() -> None:
    """As long as the patience lasts, and not a look before there is anybody to wait for."""
    script = scripted(claim=[BUSY, BUSY, ALONE])
    script.run(plans.plan(request(coalesce="team", patience=3.0, nested=True)))
    looks = [step.patience for step in script.steps if isinstance(step, Read) and step.tier == "ipfs"]
    assert looks == [0.0, 3.0 - FIRST_PAUSE, 3.0 - 3 * FIRST_PAUSE]


def test_what_the_machine_waited_is_part_of_it() -> None:
    """Who waited for another process of the machine has less patience left for the team."""
    script = scripted(lease=[False] * 10_000, claim=[BUSY] * 10_000)
    script.run(plans.plan(request(coalesce="team", patience=3.0, nested=True)))
    assert sum(pauses(script)) < 3.0 + 2 * LONGEST_PAUSE


@pytest.mark.parametrize(
    ("announced", "changes"),
    [
        (True, {"coalesce": "team"}),
        (True, {"coalesce": "auto", "took": lambda: 1.0}),
        (False, {"coalesce": "auto", "took": lambda: 0.9}),
        (False, {"coalesce": "auto"}),
        (False, {"coalesce": "team", "mode": "read-only"}),
    ],
)
def test_only_a_slow_call_whose_value_goes_out_is_announced(announced: bool, changes: dict[str, Any]) -> None:
    """One that is not announced costs a look at what was said, and no time to settle."""
    script = scripted(claim=[ALONE])
    script.run(plans.plan(request(**changes)))
    assert [claim.announce for claim in claims(script)] == [announced]
    assert pauses(script) == []


def test_an_expired_value_says_how_long_the_origin_takes() -> None:
    """Also in a process that never called it."""
    script = scripted(claim=[ALONE], read_disk=[record(age=70)])
    script.run(plans.plan(request(coalesce="auto")))
    assert [claim.announce for claim in claims(script)] == [True]


@pytest.mark.parametrize("changes", [{"coalesce": "machine"}, {"coalesce": "team", "mode": "refresh"}])
def test_nobody_is_asked_where_the_team_is_not_meant(changes: dict[str, Any]) -> None:
    """Neither by `coalesce="machine"`, as every call without a team has it, nor by who wants a new value."""
    script = scripted()
    assert script.run(plans.plan(request(**changes))) == 7
    assert claims(script) == []


@pytest.mark.parametrize("tier", ["memory", "disk", "ipfs"])
def test_a_hit_asks_nobody(tier: str) -> None:
    """In whatever tier it is."""
    script = scripted(**{f"read_{tier}": record()})
    assert script.run(plans.plan(request(coalesce="team"))) == 1
    assert claims(script) == []


def test_who_goes_alone_asks_nobody() -> None:
    """A call that would wait for itself on this machine does not wait for another one either."""
    script = scripted(join=ALONE)
    assert script.run(plans.plan(request(coalesce="team"))) == 7
    assert claims(script) == []


def test_a_tier_that_fails_while_somebody_is_waited_for_is_stepped_over() -> None:
    """It is told, and the wait goes on within its bounds."""
    script = scripted(claim=[BUSY, BUSY, ALONE], read_ipfs=[None, TierUnavailable("gone"), None])
    assert script.run(plans.plan(request(coalesce="team"))) == 7
    assert [what for what, tier, _ in script.told() if tier == "ipfs"] == ["error"]


def test_what_came_while_it_settled_ends_the_claim() -> None:
    """Then nobody computes the key, and the others may."""
    script = scripted(claim=[LEAD], read_ipfs=[None, record()])
    assert script.run(plans.plan(request(coalesce="team"))) == 1
    assert Waive() in script.steps


def test_a_stream_that_is_announced_outlasts_its_plan() -> None:
    """The plan ends when the stream has begun, and the claim when it ended; others wait for the whole."""
    script = Script(claim=[LEAD, LEAD], callorigin=Returned("begun", 0.0))
    assert script.run(plans.stream(request(coalesce="team"))) == "begun"
    assert script.steps[-1] == Waive(lasting=True)
    script = Script(claim=[BUSY], read_ipfs=[None, record()])
    assert script.run(plans.stream(request(coalesce="team"))) == 1


def test_a_refresh_in_the_background_takes_what_another_machine_computes() -> None:
    """It calls nothing then, and counts no call."""
    script = scripted(claim=[BUSY], read_ipfs=[record()])
    script.run(plans.renew(request(coalesce="team")))
    assert not [step for step in script.steps if isinstance(step, CallOrigin)]
    assert script.kinds()[-2:] == ["Write", "Write"]
    assert script.told() == []
