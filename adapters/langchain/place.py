"""Places inside a run that know when what happened there is over."""

from __future__ import annotations

from raybolt.env.context import DEFAULT_ROLE, RecordedRun, RunContext
from raybolt.env.recorded_tools import ToolAnswer


class Place(RunContext):
    """Where a chain or a tool of LangChain stands while it works; once it has ended, the place around it.

    LangChain tells of a start in the caller's own context, but of an end in a task beside it, where the
    context variable that was set at the start cannot be set back. It may keep this place all the same.
    """

    def __init__(
        self,
        run: RecordedRun,
        span_id: str,
        role: str = DEFAULT_ROLE,
        *,
        around: RunContext | None = None,
        is_tool: bool = False,
    ) -> None:
        values = {
            "run": run,
            "own_span_id": span_id,
            "own_role": role,
            "around": around,
            "is_tool": is_tool,
            "handed_to": set(),
            "_left_for": None,
            "_answer": None,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)  # past the base, which is frozen

    own_span_id: str
    own_role: str
    around: RunContext | None
    is_tool: bool
    handed_to: set[str]
    """Whom tools have handed over to here, so that the same is not told twice."""
    _left_for: RunContext | None
    _answer: ToolAnswer | None

    @property
    def span_id(self) -> str:
        return self.own_span_id if self._left_for is None else self._left_for.span_id

    @property
    def role(self) -> str:
        return self.own_role if self._left_for is None else self._left_for.role

    def keep_answer(self, answer: ToolAnswer) -> None:
        """What the tool here is to give in a replay, instead of running."""
        object.__setattr__(self, "_answer", answer)

    def take_answer(self) -> ToolAnswer | None:
        """That answer, once; None to run the tool."""
        answer = self._answer
        object.__setattr__(self, "_answer", None)
        return answer

    def leave(self) -> None:
        """From now on this is the place around it."""
        object.__setattr__(self, "_left_for", self.around)
