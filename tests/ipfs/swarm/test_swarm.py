"""Three machines with real daemons in one private swarm: what one publishes the others have, whoever is away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from teams import Machine, team_of

MISS = "cachekit.MISS"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Machine]]:
    """Three machines whose nodes run."""
    yield from team_of(3, tmp_path_factory.mktemp("team"))


@pytest.fixture
def team(nodes: list[Machine]) -> Iterator[list[Machine]]:
    """The same, without processes of an earlier test."""
    yield nodes
    for machine in nodes:
        machine.quit()


def test_what_one_publishes_the_others_have(team: list[Machine]) -> None:
    """Nothing is asked of the one who published: the entry and its payload come with the word that they exist."""
    first, *others = [machine.process() for machine in team]
    for one in others:
        one.until("len([m for m in swarm().book.members() if m.online])", lambda online: online == 2)
    made = first.ask("answer('shared', by='first')")
    first.ask("flush()")
    for one in others:
        assert one.until("repr(answer.peek('shared', by='first'))", lambda said: said != MISS, 5) == repr(made)


def test_who_comes_later_is_told_what_the_others_know(team: list[Machine]) -> None:
    """Also of an entry whose writer is away by then: the others keep its index, and a daemon that read the payload has it."""
    first, second, third = (machine.process() for machine in team)
    third.until("len([m for m in swarm().book.members() if m.online])", lambda online: online == 2)
    third.kill()
    first.ask("answer('early')")
    first.ask("flush()")
    second.until("repr(answer.peek('early'))", lambda said: said != MISS, 5)
    second.until("len(swarm().book.lacking('kept'))", lambda lacking: lacking == 0)
    team[0].quit()
    team[0].stop()
    try:
        late = team[2].process()
        late.until("repr(answer.peek('early'))", lambda said: said != MISS)
    finally:
        team[0].resume()


def test_invalidations_travel(team: list[Machine]) -> None:
    """A tag, a namespace and a function end hits on the other machines as fast as entries come."""
    first, second = team[0].process(), team[1].process()
    second.until("len(swarm().book.members())", lambda known: known >= 1)
    for end in ("invalidate(tag='word:gone')", "cachekit.clear()", "answer.clear()"):
        first.ask("[answer('gone'), flush()]")
        second.until("repr(answer.peek('gone'))", lambda said: said != MISS, 5)
        first.ask(f"[{end}, flush()]")
        second.until("repr(answer.peek('gone'))", lambda said: said == MISS, 5)


def test_sync_says_how_many_came(team: list[Machine]) -> None:
    """It asks at once, instead of waiting until somebody says something."""
    first = team[0].process()
    first.ask("[answer('counted'), flush()]")
    second = team[1].process()
    second.until("[sync(), repr(answer.peek('counted'))][1]", lambda said: said != MISS)


def test_another_process_listens_when_the_first_is_killed(team: list[Machine]) -> None:
    """One process of a cache directory listens for all of them."""
    first, second = team[0].process(), team[0].process()
    assert [first.until("swarm().leads()", bool), second.ask("swarm().leads()")] == [True, False]
    first.kill()
    second.until("swarm().leads()", bool)


def test_a_payload_that_nobody_has_is_not_looked_for_again(team: list[Machine]) -> None:
    """An index hit without its payload is a miss, and for a minute costs nobody anything."""
    first, second = team[0].process(), team[1].process()
    second.until("len(swarm().book.members())", lambda known: known >= 1)
    large = "'gone' * 20_000"
    first.ask(f"[answer({large}), flush()]")
    located = f"default().team.table.find('default', answer.key_for({large}).digest)"
    second.until(f"{located} is not None", bool)
    cid = second.ask(f"__import__('cachekit.ipfs.index.rows', fromlist=['x']).cid_of({located})")
    team[0].rpc("block/rm", arg=cid, force="true")
    assert second.ask(f"repr(answer.peek({large}))") == MISS
    assert second.ask(f"seconds(lambda: answer.peek({large}))") < 1.0
