"""The store as a Ray actor: one shard per store, named, detached, restarted from its journal when it dies.

The shard runs a ``Keeper`` and seals groups into Ray's object store *itself*: an object dies with the
process that put it, so a runner's death takes nothing along, and the driver moves references only.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from .base import Capabilities
from .client import StoreClient
from .errors import RayboltError, StoreError
from .keeper import Keeper, Question, waits

NAMESPACE = "raybolt"
"""Ray namespace of all shards, so that drivers with other namespaces find them."""


class RayStore(StoreClient):
    """A store that any process of a Ray cluster can use. Pickled, it reaches the same store elsewhere.

    Handles of groups refer to objects that the shard owns: should the shard die, those are lost with it
    (``ray.get`` raises ``OwnerDiedError``) and ``get_group`` seals them again from the journal. Calls made
    while the shard is down wait for its restart and are then repeated, which their ids make harmless.
    """

    def __init__(self, name: str, shard: ActorHandle, folder: Path | None) -> None:
        """Wraps a shard; use ``create`` or ``connect``."""
        self.name = name
        self._folder = folder
        self._shard = shard
        self._mailboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, _Mailbox] = WeakKeyDictionary()

    @classmethod
    def create(cls, path: str | os.PathLike[str] | None, *, name: str = "store") -> "RayStore":
        """Returns the store of this name with the given folder (None: memory), started if need be.

        The shard runs on this node, where the folder is, and outlives this driver (``destroy`` ends it).
        Raises StoreError if a store of this name keeps another folder or if the folder cannot be opened.
        """
        folder = Path(path).resolve() if path is not None else None
        shard = _Shard.options(  # type: ignore[attr-defined]  # Ray adds it to the class
            name=_actor_name(name),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(
                ray.get_runtime_context().get_node_id(), soft=False
            ),
        ).remote(folder)
        found, failure = ray.get(shard.opened.remote())
        if failure is not None:
            ray.kill(shard)
            raise failure
        if found != folder:
            raise StoreError(
                f"the store named {name!r} runs already, with path {found} and not {folder}; "
                "give another name, or that path"
            )
        return cls(name, shard, folder)

    @classmethod
    def connect(cls, name: str = "store") -> "RayStore":
        """Returns the running store of this name; StoreError when there is none."""
        try:
            shard = ray.get_actor(_actor_name(name), namespace=NAMESPACE)
        except ValueError:
            raise StoreError(
                f"no store named {name!r} runs in this cluster; start it by RayStore.create"
            ) from None
        folder, failure = ray.get(shard.opened.remote())
        if failure is not None:
            raise failure
        return cls(name, shard, folder)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            thread_safe=True,
            async_safe=True,
            zero_copy=True,
            otlp_traces=False,
            durable=self._folder is not None,
        )

    async def _ask(self, operation: str, **arguments: Any) -> Any:
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
        method = self._shard.wait if wait else self._shard.ask
        try:
            answers: list[Any] = await method.remote(questions)
        except RayActorError as error:
            return [StoreError(f"the store named {self.name!r} is gone: {error}") for _ in questions]
        return answers

    def __reduce__(self) -> tuple[Any, ...]:
        return RayStore, (self.name, self._shard, self._folder)

    async def close(self) -> None:
        """Does nothing to the shard, which others may be using; ``destroy`` ends it."""

    async def destroy(self) -> None:
        """Ends the shard after its journal is closed; the folder can then be opened by ``LocalStore``."""
        await self._shard.close.remote()
        ray.kill(self._shard)
        while await asyncio.to_thread(_is_named, self.name):  # Ray frees the name a little later
            await asyncio.sleep(0.01)


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
class _Shard:
    """The actor. Asynchronous, so that calls which wait (for rollouts, for the journal) hold up no other."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._failure: RayboltError | None = None
        restarted = ray.get_runtime_context().was_current_actor_reconstructed
        try:
            # After a restart the runners are still at work, and go on with their attempts.
            self._keeper = Keeper(folder, publish=_put_table, keep_in_flight=restarted)
        except RayboltError as error:
            self._failure = error  # raised here, Ray would report it as the actor's death

    async def opened(self) -> tuple[Path | None, RayboltError | None]:
        return self._folder, self._failure

    async def ask(self, questions: list[Question]) -> list[Any]:
        """Returns the answers in order; all changes share one transaction. An exception is an answer too."""
        if self._failure is not None:
            return [self._failure] * len(questions)
        return await self._keeper.ask_many(questions)

    async def wait(self, questions: list[Question]) -> list[Any]:
        """Returns the answers to questions that may take long, likewise."""
        if self._failure is not None:
            return [self._failure] * len(questions)
        calls = (self._keeper.ask(operation, arguments) for operation, arguments in questions)
        return await asyncio.gather(*calls, return_exceptions=True)

    async def close(self) -> None:
        self._keeper.close()


def _put_table(table: Any) -> ray.ObjectRef:
    from .blocks import SealedTable  # Arrow is loaded by the first group

    return ray.put(SealedTable(table))


def _is_named(name: str) -> bool:
    try:
        ray.get_actor(_actor_name(name), namespace=NAMESPACE)
    except ValueError:
        return False
    return True


def _actor_name(name: str) -> str:
    return f"raybolt-{name}"
