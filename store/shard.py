"""One shard of a RayStore: the actor, and a client's way to it."""

import asyncio
import gc
import pickle
import platform
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import ray
from ray import cloudpickle
from ray.actor import ActorHandle
from ray.exceptions import ActorUnschedulableError, ObjectStoreFullError, OutOfDiskError, RayActorError

from .errors import RayboltError, StoreError, StoreFull
from .keeper import Keeper, Question, waits
from .room import Room

PART_BYTES = 90_000
"""Ray sends an argument of up to 100 KiB within the call; it makes an object of a larger one, which takes its
node's daemon, and three times as long."""
INLINE_BYTES = 2**20
"""Up to this much is sent in such parts; beyond it an object is the quicker way."""
_GONE = (RayActorError, ActorUnschedulableError)
"""What Ray raises when a shard is not there and will not be: ended, or (the latter) its node is lost."""
_NO_ROOM = (ObjectStoreFullError, OutOfDiskError)
"""What Ray raises when an object fits neither its object store nor the disk it spills to."""
_LOST = (
    "a shard of this store has died, and as the store is in memory only, what that shard held is lost: "
    "destroy it (RayStore.connect gives a handle), and give the next one a path"
)
_REMEDY = (
    "let go of handles and of what was read from them, or start Ray with more object_store_memory or another "
    "object_spilling_directory"
)


@dataclass(frozen=True, slots=True)
class ShardState:
    """What a shard says of itself."""

    folder: Path | None
    """The store's folder, of which a shard of several keeps a part."""
    num_shards: int
    failure: RayboltError | None
    """Why it answers nothing: its folder could not be opened, or it died and had none."""


class ShardLink:
    """Asks one shard, from any event loop. Questions asked at the same time travel together."""

    def __init__(self, actor: ActorHandle, store_name: str) -> None:
        self.actor = actor
        self._store_name = store_name
        self._mailboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, _Mailbox] = WeakKeyDictionary()

    async def ask(self, operation: str, arguments: dict[str, Any]) -> Any:
        """Returns the keeper's answer; raises what the keeper raised, or StoreError if the shard is gone."""
        question = (operation, arguments)
        if waits(operation):
            (answer,) = await self._send([question], wait=True)
        else:
            answer = await self._mailbox().ask(question)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _mailbox(self) -> "_Mailbox":
        loop = asyncio.get_running_loop()
        mailbox = self._mailboxes.get(loop)
        if mailbox is None:
            mailbox = self._mailboxes[loop] = _Mailbox(self._send)
        return mailbox

    async def _send(self, questions: list[Question], *, wait: bool = False) -> list[Any]:
        """Returns the shard's answers, of which those that are exceptions are to be raised."""
        method = self.actor.wait if wait else self.actor.ask
        try:
            answers: list[Any] = await method.remote(*pack_message(questions))
        except _GONE as error:
            return [self._gone(error) for _ in questions]
        except _NO_ROOM:
            return [await self._send_inline(question, method) for question in questions]
        except Exception as error:  # whatever it is, those who asked hear of it
            return [error] * len(questions)
        return answers

    async def _send_inline(self, question: Question, method: Any) -> Any:
        """Asks without the object store, which is full; it takes longer, and Ray allows 10 MiB of it."""
        operation, arguments = question
        try:
            (answer,) = await method.remote(*pack_message([question], sys.maxsize))
        except _GONE as error:
            return self._gone(error)
        except _NO_ROOM:
            if operation == "add_rows":  # refused before the shard could hear of it
                pairs = [(row.rollout_id, row.attempt_id) for row in arguments["rows"]]
                await self._send([("hear_from", {"pairs": pairs})])
            return StoreFull(
                f"Ray's object store is full, and so is the disk it spills to: {operation!r}, or its answer, "
                f"is too large to travel without; {_REMEDY}"
            )
        except Exception as error:  # whatever it is, who asked hears of it
            return error
        return answer

    async def close(self) -> StoreError | None:
        """Has the shard close its journal, before it is ended; returns what was amiss."""
        try:
            failure: StoreError | None = await self.actor.close.remote()
        except _GONE as error:
            return self._gone(error)
        return failure

    def _gone(self, error: Exception) -> StoreError:
        return StoreError(f"the store named {self._store_name!r} is gone: {error}")


class _Mailbox:
    """What one event loop asks: questions that come while others are under way share the next message.

    A message costs the shard a millisecond whatever is in it, so a runner with many runs at once needs this.
    """

    def __init__(self, send: Callable[[list[Question]], Awaitable[list[Any]]]) -> None:
        self._send = send
        self._waiting: list[tuple[Question, asyncio.Future[Any]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_all())
        return await future

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                answers = await self._send([question for question, _ in batch])
                for (_, future), answer in zip(batch, answers, strict=True):
                    if not future.done():  # its caller may have been cancelled
                        future.set_result(answer)
        finally:
            self._sender = None


@ray.remote
class Shard:
    """The actor. Asynchronous, so that calls which wait (for rollouts, for the journal) hold up no other."""

    def __init__(
        self,
        store_folder: Path | None,
        own_folder: Path | None,
        num_shards: int,
        reserve_bytes: int,
        retention_seconds: float | None,
    ) -> None:
        # Nearly all that a shard makes either lives long or is gone at once, and hardly any of it in cycles;
        # Python's own thresholds look for those ten times as often, for a tenth of the shard's CPU time.
        gc.set_threshold(10_000, 50, 50)
        restarted = ray.get_runtime_context().was_current_actor_reconstructed
        failure: RayboltError | None = None
        try:
            if restarted and own_folder is None:
                raise StoreError(_LOST)
            # After a restart the runners are still at work, and go on with their attempts.
            room = Room(own_folder, reserve_bytes) if own_folder is not None else None
            self._keeper = Keeper(
                own_folder,
                publish=_put_table,
                keep_in_flight=restarted,
                room=room,
                retention_seconds=retention_seconds,
            )
        except RayboltError as error:
            failure = error  # raised here, Ray would report it as the actor's death
        self._state = ShardState(store_folder, num_shards, failure)

    async def state(self) -> ShardState:
        return self._state

    async def ask(self, *message: bytes) -> list[Any]:
        """Returns the answers in order; all changes share one transaction. An exception is an answer too."""
        questions = unpack_message(message)
        if self._state.failure is not None:
            return [self._state.failure] * len(questions)
        return await self._keeper.ask_many(questions)

    async def wait(self, *message: bytes) -> list[Any]:
        """Returns the answers to questions that may take long, likewise."""
        questions = unpack_message(message)
        if self._state.failure is not None:
            return [self._state.failure] * len(questions)
        calls = (self._keeper.ask(operation, arguments) for operation, arguments in questions)
        return await asyncio.gather(*calls, return_exceptions=True)

    async def close(self) -> StoreError | None:
        """Lets go of the folder; returns why the last changes could not be written, if they could not."""
        if self._state.failure is not None:
            return None
        try:
            self._keeper.close()
        except StoreError as error:
            return error
        return None


def pack_message(questions: list[Question], inline_bytes: int = INLINE_BYTES) -> list[bytes]:
    """Returns the questions as the parts of one message: small ones, up to so much, or the whole."""
    message: bytes = cloudpickle.dumps(questions)
    size = PART_BYTES if len(message) <= inline_bytes else len(message)
    return [message[start : start + size] for start in range(0, len(message), size)]


def unpack_message(parts: Sequence[bytes]) -> list[Question]:
    """Returns the questions of a message."""
    questions: list[Question] = pickle.loads(b"".join(parts))
    return questions


def _put_table(table: Any) -> ray.ObjectRef:
    """Puts the table into the object store; StoreFull if that has no room, nor the disk it spills to."""
    from .blocks import SealedTable  # Arrow is loaded by the first group

    try:
        return ray.put(SealedTable(table))
    except _NO_ROOM:
        raise StoreFull(
            f"Ray's object store on {platform.node()} is full, and so is the disk it spills to: a group of "
            f"{table.nbytes} bytes does not fit; take fewer at a time, {_REMEDY}"
        ) from None
