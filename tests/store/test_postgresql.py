"""What is PostgreSQL's own: several servers at once, events that settle, a database that is killed."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import psycopg
import pytest

from iterpo.errors import IterpoError, Unavailable, WrongState
from iterpo.labeling.crowd import FIXED
from iterpo.store import work
from iterpo.store.commit import Commit
from iterpo.store.database import FeedbackDatabase, open_database
from iterpo.store.labels import Submission, count_labels
from iterpo.store.leases import Ask
from iterpo.store.migrate import SCHEMA_VERSION
from iterpo.store.postgresql_schema import migrate
from iterpo.store.tasks import count_tasks
from iterpo.types import AnnotatorState, Outcome, Reward
from tests.labeling.fakes import RuleLabeler
from tests.labeling.test_tasks import People
from tests.store.postgresql_server import PostgresqlServer, temporary_postgresql

WAIT = 30


def reward(name: str) -> Reward:
    return Reward(name, 1.0, "rule")


@pytest.fixture
def address(postgresql_server: PostgresqlServer) -> str:
    return postgresql_server.new_database()


@contextmanager
def servers(address: str, count: int) -> Iterator[list[People]]:
    """Labeling desks of their own, as in as many processes."""
    with ExitStack() as ending:
        made = []
        for _ in range(count):
            people = People(address)
            people.people.start()
            ending.callback(people.database.close)
            ending.callback(people.desk.close)
            made.append(people)
        yield made


def eventually(condition, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_an_event_with_a_lower_cursor_that_commits_later_is_not_skipped(address: str) -> None:
    """Two transactions: the first takes its cursor, the second commits above it. Whoever reads on meanwhile must not
    get past the first one's."""
    database = open_database(address)
    appended, go_on = threading.Event(), threading.Event()

    def slow(transaction):
        transaction.append("run", reward("slow"))
        appended.set()
        assert go_on.wait(WAIT)

    waiting = database.write(slow)
    assert appended.wait(WAIT)
    database.write(lambda tx: tx.append("run", reward("fast"))).result(WAIT)
    assert database.events("run", 0).result(WAIT) == [], "the faster one's is not settled: the slower one's is below it"
    go_on.set()
    waiting.result(WAIT)
    read = database.events("run", 0).result(WAIT)
    database.close()
    assert [event.reward.completion_id for event in read] == ["slow", "fast"]


def test_readers_who_follow_racing_writers_of_several_servers_see_every_event_once(address: str) -> None:
    databases = [open_database(address) for _ in range(3)]
    seen: list[str] = []
    done = threading.Event()

    def follow() -> None:
        cursor = 0
        while True:
            last = done.is_set()
            page = databases[0].events("run", cursor, 10_000).result(WAIT)
            seen.extend(event.reward.completion_id for event in page)
            cursor = page[-1].cursor if page else cursor
            if last and not page:
                return

    reader = threading.Thread(target=follow)
    reader.start()
    futures = [
        database.write(lambda tx, name=f"{s}-{n}": tx.append("run", reward(name)))
        for n in range(300)
        for s, database in enumerate(databases)
    ]
    for future in futures:
        future.result(WAIT)
    done.set()
    reader.join(WAIT)
    for database in databases:
        database.close()
    assert len(seen) == len(set(seen)) == 900


def test_people_who_race_at_four_servers_neither_overfill_a_task_nor_lose_a_label(address: str) -> None:
    """Every person asks at every server at the same time, and sends each label to two of them."""
    with servers(address, 4) as desks:
        for index in range(8):
            desks[0].ask("a", "b", group_id=f"g{index}", required=2)
        acknowledged: list[str] = []
        leased: list[tuple[str, str]] = []

        def race(person: int, server: int) -> None:
            name, people = f"person-{person}", desks[server].people
            for turn in range(4):
                for lease in people.lease(Ask(name, 2, 60.0)).result(WAIT)[0]:
                    leased.append((name, lease.task_id))
                    label = (f"{lease.lease_id}-{turn}", Submission(lease.lease_id, Outcome.FIRST))
                    sent = [desks[(server + i) % 4].people.submit(name, [label]) for i in range(2)]
                    receipts = [each.result(WAIT)[0] for each in sent]
                    acknowledged.extend({r.event_id for r in receipts if r.accepted})

        with ThreadPoolExecutor(24) as pool:
            for each in [pool.submit(race, person, server) for person in range(6) for server in range(4)]:
                each.result(WAIT)
        labels = desks[0].labels()
        counted = desks[1].database.read(lambda c: count_labels(c, "")).result(WAIT)
        tasks = desks[2].database.read(lambda c: count_tasks(c, time.time())).result(WAIT)
    assert Counter(label.group_id for label in labels) == {f"g{index}": 2 for index in range(8)}
    assert len({(label.task_id, label.annotator) for label in labels}) == 16, "a person labelled a task twice"
    assert sorted(acknowledged) == sorted(label.label_id for label in labels)
    assert len(leased) == len(set(leased)), "a task was leased twice to one person"
    assert counted == ({"first": 16}, {"people": 16})
    assert (tasks.complete, tasks.open) == (8, 0)


def test_one_request_that_two_servers_get_at_once_is_carried_out_once(address: str) -> None:
    databases = [open_database(address) for _ in range(2)]
    both = threading.Barrier(2)

    def act(transaction):
        both.wait(WAIT)  # both have begun
        return transaction.once("r1", b"same", lambda: [transaction.append("run", reward("c"))])

    answers = [future.result(WAIT) for future in [database.write(act) for database in databases]]
    events = databases[0].events("run", 0).result(WAIT)
    for database in databases:
        database.close()
    assert sorted(answer.duplicate for answer in answers) == [False, True]
    assert answers[0].ids == answers[1].ids
    assert len(events) == 1


def test_work_that_one_server_has_in_hand_no_other_takes_until_its_claim_runs_out(address: str) -> None:
    with servers(address, 2) as (one, other):
        one.clock = other.clock
        one.ask("a", "b", required=2)  # recorded for the labeler `rule`, which nobody has started
        first, second = one.database, other.database
        take = lambda database: database.write(lambda tx: work.claim_work(tx, "rule", 10, (), database.owner))  # noqa: E731
        assert len(take(first).result(WAIT)) == 2
        assert take(second).result(WAIT) == []
        assert len(take(first).result(WAIT)) == 2, "its own"
        other.clock.now += work.CLAIM_SECONDS + 1
        assert len(take(second).result(WAIT)) == 2


def test_commits_of_one_server_are_heard_by_the_others(address: str) -> None:
    one, other = open_database(address), open_database(address)
    heard: list[Commit] = []
    other.subscribe(heard.append)
    one.write(lambda tx: tx.append("run", reward("c"))).result(WAIT)
    assert eventually(lambda: bool(heard))
    one.close()
    other.close()
    assert (heard[0].operations, heard[0].kinds) == (0, ("reward",))


def test_a_lead_s_word_and_everybody_s_labels_reach_every_server(address: str) -> None:
    with servers(address, 2) as (one, other):
        one.ask("a", "b")
        (lease,) = one.lease("ann")
        one.submit(lease)
        assert eventually(lambda: other.people.crowd.profile("ann").labels == 1)
        one.desk.leads.set_state("ann", AnnotatorState.EXCLUDED, "spam", "lea", "x1").result(WAIT)
        assert eventually(lambda: other.people.crowd.state("ann") in FIXED)
        one.ask("c", "d", group_id="g2")
        with pytest.raises(WrongState) as refused:
            other.lease("ann")
        assert refused.value.reason == "ANNOTATOR_EXCLUDED"


def test_the_duty_is_one_server_s_and_goes_to_another_when_it_ends(address: str) -> None:
    one, other = open_database(address), open_database(address)
    begun: list[str] = []
    one.when_on_duty(lambda: begun.append("one"))
    other.when_on_duty(lambda: begun.append("other"))
    assert (one.on_duty(), other.on_duty(), begun) == (True, False, ["one"])
    one.close()
    assert eventually(other.on_duty)
    assert eventually(lambda: begun == ["one", "other"])
    other.close()


def test_the_duty_goes_to_another_when_its_holders_connection_is_cut(
    address: str, postgresql_server: PostgresqlServer
) -> None:
    one, other = open_database(address), open_database(address)
    assert one.on_duty()
    holder = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = 5890"
    with psycopg.connect(address, autocommit=True) as operator:
        operator.execute(holder)
    assert eventually(lambda: one.on_duty() != other.on_duty())
    assert one.write(lambda tx: tx.append("run", reward("c"))).result(WAIT)
    one.close()
    other.close()


def test_a_deadlock_is_tried_again_and_nobody_hears_of_it(address: str) -> None:
    database = open_database(address)
    tried: Counter[str] = Counter()
    both = threading.Barrier(2)

    def act(name: str, first: str, second: str):
        def operation(transaction):
            tried[name] += 1
            transaction.locks.person(first)
            if tried[name] == 1:
                both.wait(WAIT)
            transaction.locks.person(second)
            return name

        return database.write(operation)

    found = [act("a", "ann", "bob"), act("b", "bob", "ann")]
    assert [future.result(WAIT) for future in found] == ["a", "b"]
    database.close()
    assert sum(tried.values()) == 3


@pytest.mark.parametrize("rounds", [3])
def test_every_acknowledged_label_is_there_once_however_often_postgresql_is_killed(rounds: int) -> None:
    """`kill -9` of the whole server in mid-work, as when its machine loses power but not its disk's cache; whatever
    was not acknowledged is sent again under its own request id."""
    with temporary_postgresql() as server, servers(server.new_database(), 2) as desks:
        for start in range(0, 400, 50):
            for index in range(start, start + 50):
                desks[0].ask("a", "b", group_id=f"g{index}")
        sent: dict[str, tuple[str, Submission]] = {}
        acknowledged: dict[str, str] = {}
        stop = threading.Event()

        def label(name: str, desk: People) -> None:
            while not stop.is_set():
                try:
                    leases = desk.people.lease(Ask(name, 2, 600.0)).result(WAIT)[0]
                    for lease in leases:
                        request = f"{name}-{lease.lease_id}"
                        sent[request] = (name, Submission(lease.lease_id, Outcome.FIRST))
                        (receipt,) = desk.people.submit(name, [(request, sent[request][1])]).result(WAIT)
                        if receipt.accepted:
                            acknowledged[request] = receipt.event_id
                except IterpoError:
                    time.sleep(0.05)

        threads = [threading.Thread(target=label, args=(f"p{i}", desks[i % 2])) for i in range(6)]
        for thread in threads:
            thread.start()
        for _ in range(rounds):
            before = len(acknowledged)
            assert eventually(lambda enough=before + 20: len(acknowledged) >= enough, 60)
            server.kill()
            server.start()
        stop.set()
        for thread in threads:
            thread.join(60)
        assert eventually(lambda: can_write(desks[0].database))
        again: dict[str, str] = {}
        for request, (name, submission) in sent.items():
            (receipt,) = desks[1].people.submit(name, [(request, submission)]).result(WAIT)
            again[request] = receipt.event_id
        labels = desks[0].labels()
        counted = desks[0].database.read(lambda c: count_labels(c, "")).result(WAIT)
    times = Counter(label.label_id for label in labels)
    assert len(acknowledged) >= 20 * rounds
    assert {request: again[request] for request in acknowledged} == acknowledged
    assert set(times.values()) == {1}
    assert max(Counter(label.group_id for label in labels).values()) == 1, "over-collected"
    assert counted[0] == {"first": len(labels)}


def can_write(database: FeedbackDatabase) -> bool:
    try:
        database.write(lambda tx: tx.append("other", reward("c"))).result(WAIT)
    except Unavailable:
        return False
    return True


def test_an_empty_database_gets_its_tables_and_an_older_one_waits_to_be_migrated(
    postgresql_server: PostgresqlServer,
) -> None:
    address = postgresql_server.new_database(empty=True)
    open_database(address).close()
    assert migrate(address, {}) == (SCHEMA_VERSION, SCHEMA_VERSION)
    for version, reason in ((SCHEMA_VERSION - 1, "STORE_OLD"), (SCHEMA_VERSION + 1, "STORE_TOO_NEW")):
        with psycopg.connect(address) as operator:
            operator.execute("UPDATE alembic_version SET version_num = %s", (f"{version:04d}",))
        with pytest.raises(WrongState) as refused:
            open_database(address)
        assert refused.value.reason == reason


def test_a_database_that_is_not_there_is_said_without_its_password() -> None:
    with pytest.raises(Unavailable, match="Start PostgreSQL") as away:
        open_database("postgresql://iterpo:secret@127.0.0.1:1/feedback")
    assert away.value.reason == "STORE_UNREACHABLE"
    assert "secret" not in str(away.value)


def test_events_can_neither_be_changed_nor_deleted(address: str) -> None:
    database = open_database(address)
    database.write(lambda tx: tx.append("run", reward("c"))).result(WAIT)
    for statement in ("UPDATE events SET kind = ''", "DELETE FROM events", "TRUNCATE events CASCADE"):
        with pytest.raises(IterpoError, match="append-only"):
            database.write(lambda tx, sql=statement: tx.connection.execute(sql)).result(WAIT)
    database.close()


def test_labelers_of_several_servers_share_the_work_and_judge_nothing_twice(address: str) -> None:
    asked: Counter[str] = Counter()

    def judge(text: str) -> float:
        asked[text] += 1
        time.sleep(0.005)
        return 1.0

    with servers(address, 3) as desks:
        for people in desks:
            people.desk._judges["rule"].labeler = RuleLabeler(judge)
            people.desk._queue.start()
        for index in range(40):
            desks[0].ask(f"a{index}", f"b{index}", group_id=f"g{index}", required=2)
        events = desks[0].database
        assert eventually(lambda: sum(1 for e in events.events("", 0, 10_000).result(WAIT) if e.reward) == 80, 30)
    assert set(asked.values()) == {1}
