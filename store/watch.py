"""What drives a core: the time it goes by, and whom it tells."""

from collections.abc import Callable
from dataclasses import dataclass

from .feed import Recall


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """The clock of a core, and what is called when something happens in it.

    The functions are called in the middle of a change: they may note what they hear, nothing else.
    """

    clock: Callable[[], float]
    """Seconds since the epoch, never going back."""
    on_new: Callable[[str], None]
    """A rollout of this id is new."""
    on_end: Callable[[str], None]
    """The rollout has ended."""
    on_delete: Callable[[str, list[str]], None]
    """The rollout is gone, with these attempts and all they had."""
    on_complete: Callable[[str], None]
    """The group is complete."""
    on_change: Callable[[], None]
    """The feed has grown."""
    recall_changes: Recall | None
    """Reads the journal's feed; None without a journal."""
