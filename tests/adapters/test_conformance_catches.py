"""Adapters with one thing wrong each: the conformance checks name what is wrong."""

import asyncio
import contextlib
import json
import threading
from dataclasses import replace

import pytest
from toy_adapter import PolicyModel, ToyAdapter
from toy_framework import Agent, Model
from toy_kit import Late, ToyKit

from raybolt.adapters.capture import captured_by, captured_policy
from raybolt.adapters.check import (
    CHECKS,
    NotOffered,
    drive,
    footprint,
    many,
    run_checks,
)
from raybolt.adapters.patching import patched
from raybolt.env.context import current_run, entering
from raybolt.env.policy import PolicyAbort
from raybolt.store import names


class WrongFramework(ToyAdapter):
    framework = "other"


class OneRoleForAll(ToyAdapter):
    def request(self, *args):
        return replace(super().request(*args), role="agent")


class CutsReplies(ToyAdapter):
    def reply(self, completion):
        message = super().reply(completion)
        return message | {"content": (message["content"] or "")[:5]}


class ShowsOnlyTheFirstMessage(ToyAdapter):
    def request(self, agent, messages, schema):
        return super().request(agent, messages[:1], schema)


class LosesArguments(ToyAdapter):
    def reply(self, completion):
        message = super().reply(completion)
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = "{}"
        return message


class ParsesArgumentsItself(ToyAdapter):
    def reply(self, completion):
        for call in completion.message.tool_calls:
            json.loads(call.arguments)
        return super().reply(completion)


class ChokesOnUnreadableReplies(ToyAdapter):
    def reply(self, completion):
        if completion.parse_error:
            raise ValueError(completion.parse_error)
        return super().reply(completion)


class HidesUnknownTools(ToyAdapter):
    def reply(self, completion):
        message = super().reply(completion)
        for call in message.get("tool_calls", ()):
            call["function"]["name"] = "something"
        return message

    def request(self, *args):
        request = super().request(*args)
        return replace(request, messages=request.messages[:1])


class MixesUpCallIds(ToyAdapter):
    def request(self, agent, messages, schema):
        request = super().request(agent, messages, schema)
        ids = [message.tool_call_id for message in request.messages if message.role == "tool"]
        answers = iter(reversed(ids))
        swapped = (
            replace(m, tool_call_id=next(answers)) if m.role == "tool" else m for m in request.messages
        )
        return replace(request, messages=tuple(swapped))


class RecordsNoTools(ToyAdapter):
    @contextlib.contextmanager
    def tool_span(self, agent, name, arguments):
        yield {}


class RecordsNoToolResult(ToyAdapter):
    @contextlib.contextmanager
    def tool_span(self, agent, name, arguments):
        mine = {}
        with super().tool_span(agent, name, arguments) as outcome:
            outcome["result"] = ""
            yield mine


class LeavesToolsWhereTheyWere(ToyAdapter):
    """What tools emit lands beside the tool's span."""

    @contextlib.contextmanager
    def tool_span(self, agent, name, arguments):
        span = self.begin(f"execute_tool {name}", {
            names.OPERATION: names.EXECUTE_TOOL, names.TOOL_NAME: name, names.TOOL_ARGUMENTS: arguments,
        })  # fmt: skip
        outcome = {}
        yield outcome
        span.end(attributes={names.TOOL_RESULT: outcome["result"]})


class CallsFailedToolsSuccesses(ToyAdapter):
    @contextlib.contextmanager
    def tool_span(self, agent, name, arguments):
        failure = None
        with super().tool_span(agent, name, arguments) as outcome:
            try:
                yield outcome
            except Exception as error:
                failure, outcome["result"] = error, "fine"
        if failure:
            raise failure


class NeverEndsSpans(ToyAdapter):
    @contextlib.contextmanager
    def agent_span(self, agent):
        span = self.begin(f"agent {agent.name}", {names.KIND: "agent", names.AGENT_NAME: agent.name})
        with entering(span_id=span.span_id):
            yield


class InventsParents(ToyAdapter):
    @contextlib.contextmanager
    def agent_span(self, agent):
        with entering(span_id="0123456789abcdef"), super().agent_span(agent):
            yield


class NamesTheWrongAgent(ToyAdapter):
    @contextlib.contextmanager
    def agent_span(self, agent):
        with super().agent_span(Agent("writer", None)):
            yield


class ForgetsHandOvers(ToyAdapter):
    def hand_over(self, source, target):
        """Nothing."""


class TurnsHandOversRound(ToyAdapter):
    def hand_over(self, source, target):
        super().hand_over(target, source)


class ReturnsTheJson(ToyAdapter):
    async def run(self, bound, task, inputs):
        result = await super().run(bound, task, inputs)
        return result.model_dump_json() if hasattr(result, "model_dump_json") else result


class StreamsHalf(ToyAdapter):
    def model(self, policy, frozen):
        class Half(PolicyModel):
            async def stream(self, agent, messages):
                text = (await self.chat(agent, messages))["content"]
                yield text[: len(text) // 2]

        return Half(self, policy, frozen)


class OneCallAtATime(ToyAdapter):
    lock = asyncio.Lock()

    async def answer(self, *args):
        async with self.lock:
            return await super().answer(*args)


class OneRunAtATime(ToyAdapter):
    lock = asyncio.Lock()

    async def run(self, *args):
        async with self.lock:
            return await super().run(*args)


class CachesReplies(ToyAdapter):
    def __init__(self):
        self.replies = {}

    async def answer(self, policy, own, agent, messages, schema):
        key = agent.name, len(messages)
        reply = await super().answer(policy, own, agent, messages, schema)
        return self.replies.setdefault(key, reply)


class OneConversationForAllRuns(ToyAdapter):
    def __init__(self):
        self.said = []

    def request(self, *args):
        request = super().request(*args)
        self.said += request.messages
        return replace(request, messages=tuple(self.said))


class OverlooksLateModels(ToyAdapter):
    """Swaps the models that it finds before the run."""

    def guard(self, original):
        guarded = super().guard(original)

        async def chat(model, agent, *args):
            if type(agent) is not Late:
                return await guarded(model, agent, *args)
            token = captured_policy.set(None)
            try:
                return await original(model, agent, *args)
            finally:
                captured_policy.reset(token)

        return chat


class LooksAtTheWrongRun(ToyAdapter):
    """Records spans in whatever run began last."""

    context = None

    def begin(self, name, attributes):
        LooksAtTheWrongRun.context = current_run.get()
        return super().begin(name, attributes)

    @contextlib.contextmanager
    def tool_span(self, agent, name, arguments):
        span = self.context.run.recorder.begin(f"execute_tool {name}", attributes={
            names.OPERATION: names.EXECUTE_TOOL, names.TOOL_NAME: name, names.TOOL_ARGUMENTS: arguments,
        }, parent_id=self.context.span_id)  # fmt: skip
        yield {}
        span.end()


class CannotTravel(ToyAdapter):
    def __init__(self):
        self.lock = threading.Lock()


class AnswersEverything(ToyAdapter):
    async def answer(self, policy, own, agent, messages, schema):
        return self.reply(await policy.complete(self.request(agent, messages, schema)))


class ObservesNothing(ToyAdapter):
    """Lets the own model answer outside any record of it."""

    async def answer(self, policy, own, agent, messages, schema):
        if own is None or policy.takes(self.request(agent, messages, schema)):
            return await super().answer(policy, own, agent, messages, schema)
        token = captured_policy.set(None)
        try:
            return await own(agent, messages, schema)
        finally:
            captured_policy.reset(token)


class ObservesTwice(ToyAdapter):
    """Leaves the HTTP client below the own model captured."""

    async def answer(self, policy, own, agent, messages, schema):
        request = self.request(agent, messages, schema)
        if own is None or policy.takes(request):
            return self.reply(await policy.complete(request))
        with policy.observe(request) as seen, entering(role=agent.name):
            reply = await own(agent, messages, schema)
            self.tell(seen, reply)
        return reply

    @contextlib.contextmanager
    def bind(self, agent, policy, *, role, frozen):
        with captured_by(policy), super().bind(agent, policy, role=role, frozen=frozen) as bound:
            yield bound


class ForgetsUsage(ToyAdapter):
    def tell(self, seen, reply):
        super().tell(seen, reply | {"usage": (None, None)})


class TellsNoReply(ToyAdapter):
    def tell(self, seen, reply):
        """Nothing."""


class FailsWithoutFrozen(ToyAdapter):
    async def answer(self, policy, own, agent, messages, schema):
        if own is None and not policy.takes(self.request(agent, messages, schema)):
            raise ValueError("no frozen model")
        return await super().answer(policy, own, agent, messages, schema)


class CatchesEverybody(ToyAdapter):
    """A patch that does not ask whose call it is."""

    policy = None

    @contextlib.contextmanager
    def bind(self, agent, policy, **options):
        CatchesEverybody.policy = policy
        with super().bind(agent, policy, **options) as bound:
            yield bound

    def guard(self, original):
        async def chat(model, agent, messages, schema=None):
            return await self.answer(CatchesEverybody.policy, None, agent, messages, schema)

        return chat


class SwallowsTheEnd(ToyAdapter):
    async def run(self, bound, task, inputs):
        try:
            return await super().run(bound, task, inputs)
        except PolicyAbort:
            return "I was interrupted."


class TranslatesTheEnd(ToyAdapter):
    async def answer(self, *args):
        try:
            return await super().answer(*args)
        except PolicyAbort as abort:
            raise RuntimeError(str(abort)) from abort


class TriesAgain(ToyAdapter):
    async def answer(self, *args):
        try:
            return await super().answer(*args)
        except PolicyAbort:
            return await super().answer(*args)


class LosesPatience(ToyAdapter):
    async def answer(self, *args):
        return await asyncio.wait_for(super().answer(*args), 2)


class LeavesATask(ToyAdapter):
    async def run(self, bound, task, inputs):
        self.task = asyncio.create_task(asyncio.sleep(20), name="left by the adapter")
        return await super().run(bound, task, inputs)


class LeavesAThread(ToyAdapter):
    over = threading.Event()

    async def run(self, bound, task, inputs):
        threading.Thread(target=self.over.wait, args=(20,), name="left by the adapter", daemon=True).start()
        return await super().run(bound, task, inputs)


class LeavesAPatch(ToyAdapter):
    left = contextlib.ExitStack()

    async def run(self, bound, task, inputs):
        self.left.enter_context(patched(Model, {"stream": lambda original: original}))
        return await super().run(bound, task, inputs)


class NeverGivesUp(ToyAdapter):
    """Not for a good while."""

    async def answer(self, *args):
        for _ in range(200):
            with contextlib.suppress(PolicyAbort):
                return await super().answer(*args)
        return await super().answer(*args)

    async def run(self, *args):
        running = asyncio.ensure_future(super().run(*args))
        while not running.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(running)
        return running.result()


CAUGHT = [
    (WrongFramework, "detects", "wrap() to choose 'toy'"),
    (OneRoleForAll, "reply", "calls of the roles ['writer']"),
    (OneRoleForAll, "roles", "calls of the roles ['writer', 'critic']"),
    (CutsReplies, "reply", "a result that says"),
    (ShowsOnlyTheFirstMessage, "tool_add", "a second call that shows"),
    (LosesArguments, "tool_add", "the tools called once each"),
    (ParsesArgumentsItself, "malformed_arguments", "raised by the adapter"),
    (ChokesOnUnreadableReplies, "unreadable_reply", "raised by the adapter"),
    (HidesUnknownTools, "unknown_tool", "a next call that shows 'no_such_tool'"),
    (MixesUpCallIds, "parallel_tools", "the id of the call that it answers"),
    (RecordsNoTools, "tool_add", "one span of the tool 'add'"),
    (RecordsNoToolResult, "tool_subtract", "names.TOOL_RESULT"),
    (LeavesToolsWhereTheyWere, "tool_subtract", "what the tool emits, once and below"),
    (CallsFailedToolsSuccesses, "failing_tool", "the tool's span ended as an error"),
    (NeverEndsSpans, "roles", "every span ended by what began it"),
    (InventsParents, "roles", "every span's parent among the run's"),
    (NamesTheWrongAgent, "roles", "below the span of agent 'critic'"),
    (ForgetsHandOvers, "hand_off", "one span of kind 'handoff'"),
    (TurnsHandOversRound, "hand_off", "source 'writer' and target 'critic'"),
    (ReturnsTheJson, "structured", "Verdict(score=7"),
    (StreamsHalf, "streaming", "a result that says"),
    (OneCallAtATime, "parallel", "three calls pending together"),
    (OneRunAtATime, "all_wait_together", "32 calls pending together"),
    (OverlooksLateModels, "late_model", "a run that succeeds"),
    (CachesReplies, "runs_at_once", "a result that says"),
    (OneConversationForAllRuns, "runs_at_once", "nothing of other runs in a request"),
    (OneConversationForAllRuns, "teams_at_once", "a result that says"),
    (OneConversationForAllRuns, "no_memory", "nothing of other runs in a request"),
    (OneConversationForAllRuns, "no_memory_of_aborted", "nothing of other runs in a request"),
    (LooksAtTheWrongRun, "runs_at_once", "one tool span and one emitted span"),
    (CannotTravel, "pickles", "cannot pickle"),
    (AnswersEverything, "frozen_model", "a result that says 'own reply 1'"),
    (AnswersEverything, "own_models", "a result that says 'own reply 1'"),
    (ObservesNothing, "own_models", "two chat spans"),
    (ObservesTwice, "own_models", "two chat spans"),
    (ForgetsUsage, "frozen_model", "the usage that the model reported"),
    (TellsNoReply, "own_models", "the own model's reply in the critic's span"),
    (FailsWithoutFrozen, "policy_stands_in", "a run that succeeds"),
    (CatchesEverybody, "outsiders", "at the outsider's own model"),
    (SwallowsTheEnd, "call_limit", "as if nothing had happened"),
    (SwallowsTheEnd, "given_up", "as if nothing had happened"),
    (SwallowsTheEnd, "engine_fails", "as if nothing had happened"),
    (TranslatesTheEnd, "given_up_in_parallel", "the agent left by the PolicyAbort"),
    (TriesAgain, "call_limit", "an agent that is told 1 times"),
    (LosesPatience, "thinking_is_free", "a run that succeeds"),
    (NeverGivesUp, "time_limit", "no task, busy thread or patched class"),
    (NeverGivesUp, "time_limit_async", "no task, busy thread or patched class"),
    (LeavesATask, "leaves_nothing", "left by the adapter"),
    (LeavesAThread, "leaves_nothing", "thread left by the adapter"),
    (LeavesAPatch, "leaves_nothing", "patch Model.stream"),
]


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(footprint, "SETTLE_SECONDS", 0.3)
    monkeypatch.setattr(drive, "AT_ONCE_SECONDS", 0.3)
    monkeypatch.setattr(many, "TOGETHER_SECONDS", 0.3)
    LeavesAThread.over.clear()
    yield
    LeavesAPatch.left.close()
    LeavesAThread.over.set()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("broken", "name", "seen"), [pytest.param(*case, id=f"{case[0].__name__}-{case[1]}") for case in CAUGHT]
)
async def test_an_adapter_with_one_thing_wrong_is_caught(broken, name, seen):
    (check,) = [check for check in CHECKS if check.name == name]

    class Kit(ToyKit):
        adapter = broken()

    found = (await run_checks(Kit(), [check])).broken
    assert found
    assert all(seen in outcome.detail for outcome in found), found


def test_every_check_catches_something():
    assert {check.name for check in CHECKS} - {name for _, name, _ in CAUGHT} == set()


async def test_an_adapter_that_keeps_every_rule_passes_them_all():
    report = await run_checks(ToyKit())
    assert report.broken == ()
    assert {outcome.status for outcome in report.outcomes} == {"kept"}


async def test_what_a_framework_lacks_is_reported_with_its_reason():
    class Kit(ToyKit):
        def hand_off(self, way):
            raise NotOffered("toys keep what they have")

    (check,) = [check for check in CHECKS if check.name == "hand_off"]
    report = await run_checks(Kit(), [check])
    assert [(outcome.status, outcome.detail) for outcome in report.outcomes] == [
        ("not offered", "toys keep what they have")
    ] * 2
    assert "not offered  hand_off (factory)" in str(report)


async def test_a_report_names_the_rule_what_was_expected_and_what_to_do():
    class Kit(ToyKit):
        adapter = OneRoleForAll()

    (check,) = [check for check in CHECKS if check.name == "reply"]
    text = str(await run_checks(Kit(), [check]))
    assert "toy: 0 of 2 kept" in text
    assert "broken  reply (built): the policy gets the agent's question" in text
    assert "seen: ['agent']" in text
    assert "to do: set ChatRequest.role" in text
