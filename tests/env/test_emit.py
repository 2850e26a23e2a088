"""What agent code says about itself, and where it ends up."""

import logging
from dataclasses import dataclass

import numpy as np
import pytest
from scripted_runs import HELLO, finish, new_run

from raybolt.env.context import entering
from raybolt.env.emit import emit, emit_exception, emit_message, emit_object, emit_reward, operation
from raybolt.store import names


async def spans_of(agent):
    async def whole(task, policy):
        await policy.complete(HELLO)
        agent()
        return 0

    run = new_run(whole)
    end = await finish(run)
    assert end.error is None, end
    return {span.name: span for span in run.recorder.spans}


@dataclass
class Point:
    x: int


async def test_an_event_keeps_its_attributes_as_json():
    def agent():
        args = {"n": np.float32(0.5), "p": Point(1)}
        emit("tool_call", tool_name="run_sql", args=args, other={1, 2}, made=object)

    spans = await spans_of(agent)
    attributes = spans["tool_call"].attributes
    assert attributes["tool_name"] == "run_sql"
    assert attributes["args"] == {"n": 0.5, "p": {"x": 1}}
    assert attributes["other"] == [1, 2]
    assert attributes["made"] == "<class 'object'>"
    assert attributes[names.KIND] == "emit"


async def test_arrays_of_one_dimension_stay_arrays():
    spans = await spans_of(lambda: emit("ids", ids=np.arange(3, dtype=np.int32), square=np.eye(2)))
    assert spans["ids"].attributes["ids"].dtype == np.int32
    assert spans["ids"].attributes["square"] == [[1.0, 0.0], [0.0, 1.0]]


async def test_messages_objects_and_exceptions_are_recorded():
    def agent():
        emit_message("thinking", step=1)
        emit_object({"plan": ["a", "b"]})
        emit_exception(ValueError("soft"))

    spans = await spans_of(agent)
    assert spans["message"].attributes["message"] == "thinking"
    assert spans["message"].attributes["step"] == 1
    assert spans["object"].attributes["object"] == {"plan": ["a", "b"]}
    assert (spans["exception"].status, spans["exception"].status_message) == ("error", "ValueError: soft")
    assert spans["exception"].events[0].attributes["exception.type"] == "ValueError"


async def test_spans_lie_below_the_operation_they_happen_in():
    @operation
    def outer(number):
        with operation("inner", depth=2):
            emit("leaf")
        return number + 1

    spans = await spans_of(lambda: outer(1))
    assert spans["leaf"].parent_id == spans["inner"].span_id
    assert spans["inner"].parent_id == spans["outer"].span_id
    assert spans["outer"].parent_id == spans["invoke_agent scripted"].span_id
    assert spans["outer"].attributes["arguments"] == {"number": 1}
    assert spans["outer"].attributes["result"] == 2
    assert spans["inner"].attributes["depth"] == 2


async def test_an_async_function_and_a_failing_one_are_operations_too():
    @operation("fetch", source="web")
    async def fetch(url):
        raise LookupError(url)

    async def agent(task, policy):
        await policy.complete(HELLO)
        with pytest.raises(LookupError):
            await fetch("here")
        return 0

    run = new_run(agent)
    await finish(run)
    (span,) = (span for span in run.recorder.spans if span.name == "fetch")
    assert (span.status, span.status_message) == ("error", "LookupError: here")
    assert span.attributes["source"] == "web"


async def test_what_is_emitted_carries_the_role_at_work():
    def agent():
        with entering(role="writer"):
            emit("draft")

    spans = await spans_of(agent)
    assert spans["draft"].attributes[names.AGENT_NAME] == "writer"


def test_outside_a_run_everything_does_nothing(caplog):
    @operation
    def double(number):
        return 2 * number

    with caplog.at_level(logging.DEBUG, logger="raybolt"), operation("block") as span:
        assert span is None
        assert double(2) == 4
        assert emit("event") is None
        assert emit_reward(1) is None
        assert emit_reward("nonsense") is None
        assert emit_message("x") is None
        assert emit_object([]) is None
        assert emit_exception(ValueError()) is None
    assert "'event' was emitted outside a run and is not recorded" in caplog.text
