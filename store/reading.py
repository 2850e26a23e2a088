"""What a store can be asked without changing it: filters, order and pages over the core."""

from typing import Any

from .core import LightningCore
from .errors import InvalidValue
from .query import chosen, contains, equals, is_in, page
from .rows import SpanRow
from .spans import SpanBook
from .types import Attempt, ResourcesUpdate, Rollout, Span, Worker


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
        trace_id: str | None,
        trace_id_contains: str | None,
        span_id: str | None,
        span_id_contains: str | None,
        parent_id: str | None,
        parent_id_contains: str | None,
        name: str | None,
        name_contains: str | None,
        filter_logic: Any,
        **paging: Any,
    ) -> list[SpanRow]:
        tests = [
            equals("trace_id", trace_id),
            contains("trace_id", trace_id_contains),
            equals("span_id", span_id),
            contains("span_id", span_id_contains),
            equals("parent_id", parent_id),
            contains("parent_id", parent_id_contains),
            equals("name", name),
            contains("name", name_contains),
        ]
        if paging["sort_by"] in ("attributes", "events"):  # which only in a row are texts
            raise InvalidValue(f"sort_by is {paging['sort_by']!r}, which is neither a number nor a text")
        untried = attempt_id == "latest" and self._core.entries.get(rollout_id).latest is None
        rows = [] if untried else self._spans.rows(rollout_id, attempt_id)
        return page(chosen(rows, tests, filter_logic), Span, **paging)  # type: ignore[arg-type]  # same fields

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
