"""Three machines with real daemons want one value at the same time: one of all their processes calls the function."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
import teams
from teams import Machine, Talking, team_of

FUNCTIONS = """
import asyncio, os, tempfile
from pathlib import Path
from cachekit import persist_artifact

def noted(text):
    with open(os.environ["CALLS"], "a") as log:
        log.write(f"{text} {os.getpid()}\\n")

@distributed_cache(ttl=None, coalesce="team")
def slow(text, takes=1.0):
    noted(text)
    time.sleep(takes)
    return text.upper()

@distributed_cache(ttl=None)
def auto(text, takes):
    noted(text)
    time.sleep(takes)
    return text.upper()

@distributed_cache(ttl=None, coalesce="team")
async def waited(text):
    noted(text)
    await asyncio.sleep(1.0)
    return text.upper()

@distributed_cache(ttl=None, coalesce="team")
def pieces(text):
    noted(text)
    for letter in text:
        time.sleep(0.25)
        yield letter

@distributed_cache(ttl=None, coalesce="team")
def large(text, size):
    noted(text)
    time.sleep(2.0)
    return os.urandom(size)

@persist_artifact(coalesce="team")
def built(text):
    noted(text)
    time.sleep(1.0)
    path = Path(tempfile.mkdtemp()) / text
    path.write_text(text * 100_000)
    return path

@distributed_cache(ttl=None, coalesce="team")
def broken(text):
    noted(text)
    time.sleep(0.5)
    raise LookupError(text)

@distributed_cache(ttl=None, coalesce="team", cacheable=lambda value: False)
def unkept(text):
    time.sleep(0.5)
    return text

@distributed_cache(ttl=None, coalesce="team", ignore="first")
def left(text, first):
    time.sleep(0.3)
    return right(text, False) if first else text

@distributed_cache(ttl=None, coalesce="team", ignore="first")
def right(text, first):
    time.sleep(0.3)
    return left(text, False) if first else text

def place(key):
    credential = default().team.credential
    return credential.namespace_id(key.namespace), credential.index_key(key.namespace, key.digest)

def lie(key, seconds):
    space, code = place(key)
    swarm().say("claim", {"claims": [[space, code.hex(), "liar", 0, seconds, "open"]]})

def coalesced(f):
    return stats(f).as_dict()["coalesced"]

"""
ONLINE = "len([m for m in swarm().book.members() if m.online])"


class Team(NamedTuple):
    """Three machines with four processes each, which hear each other; `log` has a line for each call of a function."""

    machines: list[Machine]
    processes: list[list[Talking]]
    log: Path

    def everybody(self) -> list[Talking]:
        return [one for own in self.processes for one in own]

    def calls(self, text: str) -> list[int]:
        """The ids of the processes that called a function with `text`."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [int(pid) for said, pid in map(str.split, lines) if said == text]

    def caller(self, text: str) -> Talking:
        """The process that did, once one does."""
        end = time.monotonic() + 10
        while not (pids := self.calls(text)):
            assert time.monotonic() < end
            time.sleep(0.01)
        return next(one for one in self.everybody() if one.process.pid == pids[0])


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """The team that all tests here use, each with texts of its own."""
    place = tmp_path_factory.mktemp("team")
    head, tail = teams.PROGRAM.split("for line in", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teams, "PROGRAM", f"{head}{FUNCTIONS}for line in{tail}")
        for machines in team_of(3, place):
            log = place / "calls"
            with ThreadPoolExecutor(3) as pool:
                processes = list(pool.map(lambda one: [one.process(CALLS=str(log)) for _ in range(4)], machines))
            for own in processes:
                own[0].until(ONLINE, lambda online: online == 2)
            yield Team(machines, processes, log)


def asked(processes: Iterable[Talking], line: str) -> list[object]:
    """What all of them say, asked at once; None of one that was killed."""

    def ask(one: Talking) -> object:
        try:
            return one.ask(line)
        except EOFError:
            return None

    chosen = list(processes)
    with ThreadPoolExecutor(len(chosen)) as pool:
        return list(pool.map(ask, chosen))


def test_twelve_processes_on_three_machines_make_one_call(team: Team) -> None:
    """All get the value, and those who waited for another machine count it as coalesced."""
    asked(team.everybody(), "slow.key_for('cold') and None")
    assert asked(team.everybody(), "slow('cold')") == ["COLD"] * 12
    assert len(team.calls("cold")) == 1
    assert sum(map(int, asked(team.everybody(), "coalesced(slow)"))) >= 2


@pytest.mark.parametrize(
    "call", ["asyncio.run(waited('awaited'))", "''.join(pieces('piece'))", "built('file').read_text()[-4:] == 'file'"]
)
def test_coroutines_streams_and_artifacts_are_called_once_too(team: Team, call: str) -> None:
    """Who waits for a stream of another machine takes all of it when it ended."""
    text = next(text for text in ("awaited", "piece", "file") if text in call)
    first = [own[0] for own in team.processes]
    assert len(set(map(str, asked(first, call)))) == 1
    assert len(team.calls(text)) == 1


def test_a_large_value_has_as_long_to_come_as_it_took(team: Team) -> None:
    """Longer than a lookup may take: who waits would only call the function instead."""
    first = [machine.process(CALLS=str(team.log), CACHEKIT_IPFS_TIMEOUT="0.25") for machine in team.machines[:2]]
    assert asked(first, "len(large('large', 16_000_000))") == [16_000_000] * 2
    assert len(team.calls("large")) == 1


def test_a_slow_function_is_told_without_being_asked_for(team: Team) -> None:
    """What took a second last time is announced; a machine that never called it waits all the same."""
    first, second = team.processes[0][0], team.processes[1][0]
    assert first.ask("auto('slowly', 1.1)") == "SLOWLY"
    with ThreadPoolExecutor(1) as pool:
        leading = pool.submit(first.ask, "auto('again', 1.1)")
        team.caller("again")
        assert second.ask("auto('again', 1.1)") == "AGAIN"
        assert leading.result() == "AGAIN"
    assert len(team.calls("again")) == 1
    took = "default().team.tier.claims.took(auto.key_for('', 0).function, 0.0)"
    assert team.processes[0][1].until(took, bool) > 1  # which never called it either


def test_a_call_that_raises_sends_the_others_on_alone(team: Team) -> None:
    """Each machine sees an exception of its own call, and none waits until a claim runs out."""
    first = [own[0] for own in team.processes]
    begun = time.monotonic()
    assert asked(first, "broken('wrong')") == ["raised LookupError('wrong')"] * 3
    assert time.monotonic() - begun < 2.5
    assert len(team.calls("wrong")) == 3


def test_a_value_that_is_not_kept_sends_the_others_on_alone(team: Team) -> None:
    """They do not wait for each other one after the other."""
    first = [own[0] for own in team.processes]
    begun = time.monotonic()
    assert asked(first, "unkept('unkept')") == ["unkept"] * 3
    assert time.monotonic() - begun < 2.5


def test_one_of_those_who_wait_goes_on_when_the_leader_is_killed(team: Team) -> None:
    """Its claim runs out within seconds; the one that goes on is waited for in its turn."""
    first = [own[1] for own in team.processes]
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(asked, first, "slow('killed', 1.5)")
        team.caller("killed").kill()
        begun = time.monotonic()
        assert sorted(map(str, asking.result())) == ["KILLED", "KILLED", "None"]
        assert time.monotonic() - begun < 8
    assert len(team.calls("killed")) == 2


def test_the_value_of_a_process_that_ends_at_once_arrives(team: Team) -> None:
    """A script that stored its value and is done publishes it before it goes."""
    leader, other = team.processes[0][2], team.processes[1][2]
    with ThreadPoolExecutor(2) as pool:
        leading = pool.submit(leader.ask, "slow('leaves')")
        team.caller("leaves")
        waiting = pool.submit(other.ask, "slow('leaves')")
        assert leading.result() == "LEAVES"
        assert leader.process.stdin is not None
        leader.process.stdin.close()
        assert waiting.result() == "LEAVES"
    assert leader.process.wait(10) == 0
    leader.kill()
    assert len(team.calls("leaves")) == 1


def test_who_waits_leads_when_the_leader_is_cancelled(team: Team) -> None:
    """At once: nobody waits until a claim runs out."""
    leader, other = team.processes[0][0], team.processes[1][0]
    with ThreadPoolExecutor(1) as pool:
        leading = pool.submit(leader.ask, "asyncio.run(asyncio.wait_for(waited('cancelled'), 0.5))")
        team.caller("cancelled")
        begun = time.monotonic()
        assert other.ask("asyncio.run(waited('cancelled'))") == "CANCELLED"
        assert time.monotonic() - begun < 2.8
        assert "TimeoutError" in leading.result()
    assert len(team.calls("cancelled")) == 2


def test_a_peer_that_claims_and_computes_nothing_holds_a_call_up_once(team: Team) -> None:
    """As long as its claim holds, and not again for that key, however often it says so."""
    caller, liar = team.processes[0][0], team.processes[2][0]
    key = "slow.key_for('never', 0.1)"
    liar.ask(f"lie({key}, 1.0)")
    caller.until(f"len(swarm().book.claims.living(*place({key})))", bool)
    assert caller.ask("seconds(lambda: slow('never', 0.1))") > 0.5
    caller.ask("slow.invalidate('never', 0.1)")
    liar.ask(f"lie({key}, 1e9)")
    assert caller.ask("seconds(lambda: slow('never', 0.1))") < 1.0
    assert len(team.calls("never")) == 2


def test_machines_that_wait_for_each_other_go_on(team: Team) -> None:
    """A call within a call waits for another machine no longer than its patience."""
    first, second = (one.process(CALLS=str(team.log), CACHEKIT_PATIENCE="1") for one in team.machines[:2])
    with ThreadPoolExecutor(2) as pool:
        answers = pool.submit(first.ask, "left('x', True)"), pool.submit(second.ask, "right('x', True)")
        assert [answer.result(10) for answer in answers] == ["x", "x"]
