"""Which spans share a request to a server, in which order they go, and that none is lost."""

import asyncio

import pytest
from store_samples import make_call_span

from raybolt.store import InvalidValue, LocalStore, StoreError, blocking, span_mailbox
from raybolt.store.rows import SpanRow, pack_span
from raybolt.store.span_mailbox import SpanMailbox


@pytest.fixture(scope="module")
def rows() -> list[SpanRow]:
    store = LocalStore()
    attempt = blocking(store.start_rollout("x")).attempt
    blocking(store.close())
    return [pack_span(make_call_span(attempt, number)) for number in range(9)]


class Server:
    """Answers a request when told to; knows which rows were sent, by their numbers, and which it has."""

    def __init__(self, *, free: bool = False) -> None:
        self.requests: list[list[int]] = []
        self.had: set[int] = set()
        self.refuses: dict[int, Exception] = {}
        self._free = asyncio.Semaphore(10**6 if free else 0)
        self._heard = asyncio.Semaphore(0)

    async def send(self, rows: list[SpanRow]) -> list[int]:
        numbers = [row.sequence_id for row in rows]
        self.requests.append(numbers)
        self._heard.release()
        await asyncio.sleep(0)  # no answer comes at once
        await self._free.acquire()
        for number in numbers:
            if number in self.refuses:
                raise self.refuses[number]
        repeated = []
        for place, number in enumerate(numbers):
            if number in self.had:
                repeated.append(place)
            self.had.add(number)
        return repeated

    async def heard(self) -> None:
        """Returns when one more request has come."""
        async with asyncio.timeout(60):
            await self._heard.acquire()

    def answer(self) -> None:
        self._free.release()


async def test_one_after_another_is_sent_by_its_caller(rows: list[SpanRow]) -> None:
    server = Server(free=True)
    tasks = set()

    async def send(rows: list[SpanRow]) -> list[int]:
        tasks.add(asyncio.current_task())
        return await server.send(rows)

    mailbox = SpanMailbox(send)
    assert [await mailbox.add([row]) for row in rows[:3]] == [[], [], []]
    assert await mailbox.add(rows[2:4]) == [0]
    assert server.requests == [[0], [1], [2], [2, 3]]
    assert tasks == {asyncio.current_task()}


async def test_of_those_added_at_the_same_time_all_but_the_first_share_a_request(rows: list[SpanRow]) -> None:
    server = Server(free=True)
    mailbox = SpanMailbox(server.send)
    assert await asyncio.gather(*(mailbox.add([row]) for row in rows[:4])) == [[], [], [], []]
    assert server.requests == [[0], [1, 2, 3]]


async def test_those_added_while_one_is_under_way_go_together_behind_it(rows: list[SpanRow]) -> None:
    server = Server()
    mailbox = SpanMailbox(server.send)
    first = asyncio.create_task(mailbox.add([rows[0]]))
    await server.heard()
    others = [asyncio.create_task(mailbox.add([row])) for row in (rows[1], rows[0], rows[2])]
    outcome = asyncio.create_task(mailbox.sent())
    for _ in range(5):
        await asyncio.sleep(0)
    assert server.requests == [[0]]
    server.answer()
    assert await first == []
    await server.heard()
    assert not outcome.done()
    server.answer()
    assert await asyncio.gather(*others) == [[], [0], []]
    await outcome
    assert server.requests == [[0], [1, 0, 2]]
    await mailbox.sent()  # which needs no request
    assert server.requests == [[0], [1, 0, 2]]


async def test_an_outcome_waits_for_the_one_span_before_it(rows: list[SpanRow]) -> None:
    server = Server()
    mailbox = SpanMailbox(server.send)
    adding = asyncio.create_task(mailbox.add([rows[0]]))
    await server.heard()
    outcome = asyncio.create_task(mailbox.sent())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not outcome.done()
    server.answer()
    await outcome
    assert adding.done()


@pytest.mark.parametrize("num_steps", [0, 1, 2, 3])
async def test_what_a_cancelled_caller_added_is_sent_first(rows: list[SpanRow], num_steps: int) -> None:
    server = Server()
    mailbox = SpanMailbox(server.send)
    adding = asyncio.create_task(mailbox.add([rows[0]]))
    await asyncio.sleep(0)
    for _ in range(num_steps):  # before it is sent, or after
        await asyncio.sleep(0)
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    outcome = asyncio.create_task(mailbox.sent())
    later = asyncio.create_task(mailbox.add([rows[1]]))
    for _ in range(5):
        server.answer()
    await outcome
    assert 0 in server.had
    assert await later == []
    assert server.had == {0, 1}
    assert server.requests[-1] in ([1], [0, 1])


async def test_what_a_cancelled_caller_added_is_sent_though_nobody_adds_more(rows: list[SpanRow]) -> None:
    server = Server()
    mailbox = SpanMailbox(server.send)
    adding = asyncio.create_task(mailbox.add([rows[0]]))
    await server.heard()
    adding.cancel()
    await server.heard()
    server.answer()
    await mailbox.sent()
    assert server.had == {0}


async def test_callers_that_wait_behind_a_cancelled_one_get_their_own_answers(rows: list[SpanRow]) -> None:
    server = Server()
    mailbox = SpanMailbox(server.send)
    first = asyncio.create_task(mailbox.add(rows[:2]))
    await server.heard()
    second, third = (asyncio.create_task(mailbox.add([rows[number]])) for number in (2, 0))
    await asyncio.sleep(0)
    first.cancel()
    await server.heard()
    second.cancel()
    server.answer()
    assert await third == [0]  # the first caller's was there before
    assert server.requests == [[0, 1], [0, 1, 2, 0]]


async def test_a_cancelled_task_of_its_own_loses_nothing(rows: list[SpanRow]) -> None:
    server = Server()
    mailbox = SpanMailbox(server.send)
    before = asyncio.all_tasks()
    adding = [asyncio.create_task(mailbox.add([row])) for row in rows[:3]]
    await server.heard()
    server.answer()
    await server.heard()
    (own,) = asyncio.all_tasks() - before - set(adding)
    own.cancel()
    await server.heard()
    server.answer()
    assert await asyncio.gather(*adding) == [[], [], []]
    assert server.requests == [[0], [1, 2], [1, 2]]


async def test_refused_rows_are_refused_alone_and_failures_are_everybodys(rows: list[SpanRow]) -> None:
    server = Server(free=True)
    mailbox = SpanMailbox(server.send)
    server.refuses = {1: InvalidValue("no")}
    with pytest.raises(InvalidValue, match="no"):
        await mailbox.add([rows[1]])
    results = await asyncio.gather(*(mailbox.add([row]) for row in rows[:3]), return_exceptions=True)
    assert [type(each) for each in results] == [list, InvalidValue, list]
    server.refuses = {4: StoreError("away")}
    results = await asyncio.gather(*(mailbox.add([row]) for row in rows[3:6]), return_exceptions=True)
    assert [str(each) for each in results] == ["[]", "away", "away"]
    assert await mailbox.add([rows[5]]) == []


async def test_no_request_carries_much_more_than_it_may(
    rows: list[SpanRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        span_mailbox, "MAX_BYTES", 2 * (200 + len(rows[0].arrays) + len(rows[0].attributes)) + 50
    )
    server = Server(free=True)
    mailbox = SpanMailbox(server.send)
    await asyncio.gather(*(mailbox.add([row]) for row in rows[:6]))
    assert server.requests == [[0], [1, 2], [3, 4], [5]]
    server.requests.clear()
    assert await mailbox.add(rows) == [0, 1, 2, 3, 4, 5]
    assert [len(request) for request in server.requests] == [3, 3, 3]
