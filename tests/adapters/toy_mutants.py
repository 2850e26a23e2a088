"""Adapters for the toy framework with one thing wrong each."""

import asyncio
import contextlib
import json
import threading
from dataclasses import replace

from toy_adapter import PolicyModel, ToyAdapter
from toy_framework import Agent, Model
from toy_kit import Late

from raybolt.adapters.capture import captured_by, captured_policy
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


class EntersNoAgents(ToyAdapter):
    @contextlib.contextmanager
    def agent_span(self, agent):
        self.begin(f"agent {agent.name}", {names.KIND: "agent", names.AGENT_NAME: agent.name}).end()
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
