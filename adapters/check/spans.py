"""What the spans of a finished run must look like, whatever the framework."""

from __future__ import annotations

from collections.abc import Iterator

from raybolt.adapters.check.drive import Ran
from raybolt.adapters.check.rules import expect
from raybolt.env.recorder import CUT_OFF
from raybolt.store import names
from raybolt.store.types import Span

AGENT_KINDS = ("agent", "node")


def chats(ran: Ran) -> list[Span]:
    """The spans of LLM calls, in the order in which they began."""
    return _operation(ran, names.CHAT)


def tool_spans(ran: Ran) -> list[Span]:
    """The spans of tools, in the order in which they began."""
    return _operation(ran, names.EXECUTE_TOOL)


def hand_offs(ran: Ran) -> list[tuple[str | None, str | None]]:
    """Source and target of every recorded hand-off."""
    return [
        (span.attributes.get(names.HANDOFF_SOURCE), span.attributes.get(names.HANDOFF_TARGET))
        for span in ran.spans
        if span.attributes.get(names.KIND) == "handoff"
    ]


def ancestors(ran: Ran, span: Span) -> Iterator[Span]:
    """The spans around `span`, the innermost first."""
    by_id = {each.span_id: each for each in ran.spans}
    while (parent := by_id.get(span.parent_id or "")) is not None:
        yield parent
        span = parent


def expect_sound_tree(ran: Ran) -> None:
    """One root; every other span has a parent that exists and had begun; each was ended by who began it."""
    by_id = {span.span_id: span for span in ran.spans}
    roots = [span.name for span in ran.spans if span.parent_id is None]
    expect(
        len(roots) == 1,
        expected="one span without a parent: the run's own",
        seen=roots,
        remedy="begin spans with parent_id=current_run.get().span_id",
    )
    orphans = [span.name for span in ran.spans if span.parent_id is not None and span.parent_id not in by_id]
    expect(
        not orphans,
        expected="every span's parent among the run's spans",
        seen=orphans,
        remedy="take parents from the present run only, and end every span that was begun",
    )
    cut_off = [span.name for span in ran.spans if span.status_message == CUT_OFF]
    expect(
        not cut_off,
        expected="every span ended by what began it",
        seen=cut_off,
        remedy="end the span when the framework says that the tool or the agent is done",
    )


def expect_chats_at_home(ran: Ran) -> None:
    """Each LLM call stands below the span of the agent that makes it, unless that is the run's own span."""
    agents = [span for span in ran.spans if span.attributes.get(names.KIND) in AGENT_KINDS]
    recorded = {span.attributes.get(names.AGENT_NAME) for span in agents}
    for span in chats(ran):
        role = span.attributes[names.AGENT_NAME]
        around = next((each for each in ancestors(ran, span) if each in agents), None)
        if around is None and role not in recorded:
            continue
        home = None if around is None else around.attributes.get(names.AGENT_NAME)
        expect(
            home == role,
            expected=f"the call of {role!r} below the span of agent {role!r}",
            seen=[each.name for each in ancestors(ran, span)],
            remedy="enter the agent's span (env.context.entering) where its model is called",
        )


def _operation(ran: Ran, operation: str) -> list[Span]:
    return [span for span in ran.spans if span.attributes.get(names.OPERATION) == operation]
