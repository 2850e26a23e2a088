"""The resources of a store: named things given to agents, at their last version."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

from .errors import InvalidValue, UnknownResources
from .feed import ChangeFeed
from .record import Recorder
from .rules import same_json
from .types import Json, ResourcesUpdate


class ResourcesBook:
    """Resources by id; the ones added or updated last are the latest."""

    def __init__(self, recorder: Recorder, feed: ChangeFeed, clock: Callable[[], float]) -> None:
        self._record = recorder
        self._feed = feed
        self._clock = clock
        self._updates: OrderedDict[str, ResourcesUpdate] = OrderedDict()

    def restore(self, updates: Iterable[ResourcesUpdate]) -> None:
        """Starts from what a journal holds; the latest stand last."""
        self._updates.update((update.resources_id, update) for update in updates)

    def add(self, resources: Mapping[str, Json], *, resources_id: str) -> ResourcesUpdate:
        """Makes version 1; adding the same contents under the same id again returns the first."""
        known = self._updates.get(resources_id)
        if known is not None and not same_json(known.resources, resources):
            raise InvalidValue(f"resources_id {resources_id!r} is taken; change it by update_resources")
        return known or self._keep(resources_id, resources)

    def update(self, resources_id: str, resources: Mapping[str, Json]) -> ResourcesUpdate:
        """Makes the next version, the first of an id that is new; contents equal to the present make none."""
        known = self._updates.get(resources_id)
        if known is not None and same_json(known.resources, resources):
            return known
        return self._keep(resources_id, resources)

    def get(self, resources_id: str) -> ResourcesUpdate | None:
        return self._updates.get(resources_id)

    def all(self) -> Iterable[ResourcesUpdate]:
        """All resources; those added or updated last stand last."""
        return self._updates.values()

    def __len__(self) -> int:
        return len(self._updates)

    def resolve(self, resources_ids: Iterable[str | None]) -> list[str | None]:
        """The ids, those of the latest resources in place of None; UnknownResources for one nobody added."""
        latest = self.latest()
        resolved = []
        for resources_id in resources_ids:
            self.check_known(resources_id)
            resolved.append(resources_id or (latest.resources_id if latest else None))
        return resolved

    def check_known(self, resources_id: str | None) -> None:
        """Raises UnknownResources for an id that no resources have; None names none."""
        if resources_id is not None and resources_id not in self._updates:
            raise UnknownResources(f"no resources have the id {resources_id!r}; add them by add_resources")

    def latest(self) -> ResourcesUpdate | None:
        return next(reversed(self._updates.values()), None)

    def _keep(self, resources_id: str, resources: Mapping[str, Json]) -> ResourcesUpdate:
        now = self._clock()
        known = self._updates.pop(resources_id, None)
        update = self._updates[resources_id] = ResourcesUpdate(
            resources_id=resources_id,
            version=known.version + 1 if known else 1,
            create_time=known.create_time if known else now,
            update_time=now,
            resources=dict(resources),
        )
        self._record.resources(update)
        self._feed.add("resources", resources_id=resources_id)
        return update
