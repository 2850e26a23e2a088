"""What a store can be asked without changing it: filters, order and pages over the core."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from .core import LightningCore
from .errors import InvalidValue
from .query import Test, chosen, contains, equals, is_in, page
from .rows import SpanRow
from .spans import SpanBook
from .types import Attempt, ResourcesUpdate, Rollout, Span, Worker

_TEXTS: Final = ("trace_id", "span_id", "parent_id", "name")
_SPAN_TESTS: Final[dict[str, Callable[[str], Test[Any] | None]]] = {
    **{field: partial(equals, field) for field in _TEXTS},
    **{f"{field}_contains": partial(contains, field) for field in _TEXTS},
}
"""Filters of spans by their names."""


class Reader:
    """The queries; their arguments are those of ``LightningStore``'s methods."""

    def __init__(self, core: LightningCore, spans: SpanBook) -> None:
        self._core = core
        self._spans = spans

    def rollout(self, rollout_id: str) -> Rollout | None:
        return self._core.entries.shown(rollout_id)

    def rollouts(
        self,
        *,
        status_in: list[str] | None,
        rollout_id_in: list[str] | None,
        rollout_id_contains: str | None,
        group_id_in: list[str] | None,
        mode: str | None,
        filter_logic: Any,
        **paging: Any,
    ) -> list[Rollout]:
        # The two that name their rollouts or groups narrow the search, unless any filter will do.
        narrow = filter_logic == "and"
        found = self._core.entries.candidates(
            self._core.groups, rollout_id_in if narrow else None, group_id_in if narrow else None
        )
        tests = [
            is_in("status", status_in),
            is_in("rollout_id", rollout_id_in),
            is_in("group_id", group_id_in),
            contains("rollout_id", rollout_id_contains),
            equals("mode", mode),
        ]
        rollouts = page(chosen(found, tests, filter_logic), Rollout, **paging)
        shown = (self._core.entries.shown(rollout.rollout_id) for rollout in rollouts)
        return [rollout for rollout in shown if rollout is not None]

    def attempts(self, rollout_id: str, **paging: Any) -> list[Attempt]:
        return page(self._core.attempts(rollout_id), Attempt, **paging)

    def rows(
        self,
        rollout_id: str,
        attempt_id: str | None,
        *,
        filter_logic: Any,
        limit: int,
        offset: int,
        sort_by: str | None,
        sort_order: Any,
        **filters: str | None,
    ) -> list[SpanRow]:
        tests = [_SPAN_TESTS[filter](text) for filter, text in filters.items() if text is not None]
        if sort_by in ("attributes", "events"):  # which only in a row are texts
            raise InvalidValue(f"sort_by is {sort_by!r}, which is neither a number nor a text")
        untried = attempt_id == "latest" and self._core.entries.get(rollout_id).latest is None
        rows = [] if untried else self._spans.rows(rollout_id, attempt_id)
        found: Iterable[Any] = chosen(rows, tests, filter_logic)
        # Rows have the fields of spans.
        return page(found, Span, sort_by=sort_by, sort_order=sort_order, limit=limit, offset=offset)

    def resources(
        self, *, resources_id: str | None, resources_id_contains: str | None, **paging: Any
    ) -> list[ResourcesUpdate]:
        tests = [equals("resources_id", resources_id), contains("resources_id", resources_id_contains)]
        return page(chosen(self._core.resources.all(), tests), ResourcesUpdate, **paging)

    def workers(
        self,
        *,
        status_in: list[str] | None,
        worker_id_contains: str | None,
        filter_logic: Any,
        **paging: Any,
    ) -> list[Worker]:
        tests = [is_in("status", status_in), contains("worker_id", worker_id_contains)]
        return page(chosen(self._core.workers.all(), tests, filter_logic), Worker, **paging)
