"""Groups sealed as tables: what their takers read, as it is when they are taken."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .errors import StoreError, StoreFull
from .types import Group, GroupHandle

if TYPE_CHECKING:
    import pyarrow as pa


class Sealer:
    """Makes handles of groups. ``publish`` turns a sealed group's table into what a handle refers to."""

    def __init__(self, members: Callable[[str], Any], publish: "Callable[[pa.Table], Any]") -> None:
        """``members`` returns the rollouts of a group, with their attempts and rows."""
        self._members = members
        self._publish = publish

    def seal_what_fits(self, groups: Sequence[Group], claim: str | None) -> list[GroupHandle]:
        """Handles of the first groups, as many as there is room for; StoreFull if there is none for one.

        They leave room for one more: what Ray has moved to a disk that is full by now needs it to be read.
        A group of which no table can be made keeps no other back: it is passed over, or raises StoreError
        if there is no other.
        """
        handles: list[GroupHandle] = []  # alone has what was published, and lets go of it
        largest: pa.Table | None = None
        failure: StoreError | None = None
        try:
            for group in groups:
                try:
                    table = self._seal(group, claim, handles)
                except StoreFull:
                    raise
                except Exception as error:  # whatever Arrow has against it
                    failure = StoreError(
                        f"group {group.group_id!r} cannot be sealed ({error}); delete its rollouts, or take "
                        "others by group_id_in"
                    )
                else:
                    largest = table if largest is None or table.nbytes > largest.nbytes else largest
            if largest is not None:
                self._publish(largest)  # and lets go of it
        except StoreFull:
            del handles[-1:]
            if not handles:
                raise
        if failure is not None and not handles:
            raise failure
        return handles

    def _seal(self, group: Group, claim: str | None, handles: list[GroupHandle]) -> "pa.Table":
        """Adds the group's handle to the others; returns its table."""
        from .blocks import encode_rows, num_sampled_tokens  # Arrow is loaded by the first group

        members = self._members(group.group_id)
        table = encode_rows(group.group_id, group.task_id, members)
        handles.append(
            GroupHandle(
                group_id=group.group_id,
                task_id=group.task_id,
                claim=claim,
                ref=self._publish(table),
                num_rollouts=len(members),
                num_succeeded=group.num_succeeded,
                num_spans=table.num_rows,
                num_tokens=num_sampled_tokens(table),
                nbytes=table.nbytes,
            )
        )
        return table
