"""The store of a training run: the one in the run's own folder, or one that runs elsewhere."""

from __future__ import annotations

import re
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from raybolt.store.blocking import blocking
from raybolt.store.errors import InvalidValue

if TYPE_CHECKING:
    from raybolt.store import HttpStore, RayStore

OWN_LABELS = ("iteration-", "evaluation-")
"""What the ids of the groups that training queues begin with."""


class RunStore:
    """Where a run's rollouts are: opened when training starts, let go of when the trainer is closed.

    Args:
        given: the run's folder, whose store this run starts and ends; or the address of a store's server, or
            a store that all of Ray's processes can reach. Those go on when the run has ended.

    Raises:
        InvalidValue: it is none of these.
    """

    def __init__(self, given: str | Path | HttpStore | RayStore) -> None:
        self.folder: Path | None = None
        """Where the run's own store is; None for one that runs elsewhere."""
        self._url: str | None = None
        self._given: HttpStore | RayStore | None = None
        self._opened: HttpStore | RayStore | None = None  # and to be let go of
        if isinstance(given, str) and given.startswith(("http://", "https://")):
            self._url = given
        elif isinstance(given, str | Path):
            self.folder = Path(given).resolve()
        else:
            self._given = _checked(given)

    @property
    def default_folder(self) -> Path:
        """Where the run leaves what it makes unless told: with its store, or below `runs` right here."""
        if self.folder is not None:
            return self.folder
        name = _name(self._given) if self._given is not None else self._url
        assert name is not None
        return Path("runs", re.sub(r"[^A-Za-z0-9.]+", "-", name.partition("://")[2]).strip("-.")).resolve()

    def open(self) -> HttpStore | RayStore:
        """Returns the store, started if it is the run's own, with nothing queued in it.

        Raises:
            InvalidValue: others have queued rollouts in it, which the runners would take.
            StoreError: it cannot be reached or opened.
        """
        from raybolt.store import HttpStore, RayStore

        if self.folder is not None:
            name = f"run-{blake2b(bytes(self.folder), digest_size=8).hexdigest()}"
            self._opened = RayStore.create(self.folder, name=name)
        elif self._url is not None:
            self._opened = HttpStore(self._url)
        store = self._opened or self._given
        assert store is not None
        _cancel_leftovers(store, only_ours=self.folder is None)
        return store

    def close(self) -> None:
        """Ends the run's own store, and the connections to another that it opened; twice does nothing."""
        from raybolt.store import RayStore

        opened, self._opened = self._opened, None
        if opened is not None:
            blocking(opened.destroy() if isinstance(opened, RayStore) else opened.close())


def _checked(store: HttpStore | RayStore) -> HttpStore | RayStore:
    from raybolt.store import HttpStore, RayStore

    if isinstance(store, HttpStore | RayStore):
        return store
    raise InvalidValue(
        f"store is a {type(store).__name__}, which the processes of a run do not reach; give a folder, "
        "the address of `raybolt store serve`, an HttpStore or a RayStore."
    )


def _name(store: HttpStore | RayStore) -> str:
    from raybolt.store import HttpStore

    return store.url if isinstance(store, HttpStore) else f"ray://{store.name}"


def _cancel_leftovers(store: HttpStore | RayStore, *, only_ours: bool) -> None:
    """Cancels what an earlier run left queued, or the new one would run it too."""
    leftovers = blocking(store.query_rollouts(status_in=("queuing", "requeuing", "preparing", "running")))
    foreign = [each for each in leftovers if not str(each.group_id).startswith(OWN_LABELS)]
    if only_ours and foreign:
        raise InvalidValue(
            f"the store {_name(store)} has {len(foreign)} rollouts that are not over and that no training "
            f"queued, {foreign[0].rollout_id!r} for one; the run's runners would take them. End them, or "
            "give the run a store of its own."
        )
    for rollout in leftovers:
        blocking(store.update_rollout(rollout.rollout_id, status="cancelled"))
