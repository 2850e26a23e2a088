"""A complete adapter for the toy framework, as a user would write one of their own."""

import inspect
from contextlib import contextmanager

from toy_framework import Agent, Model, on_agent, on_hand_over, on_tool

from raybolt.adapters.base import Adapter
from raybolt.adapters.capture import captured_by, captured_policy, own_call
from raybolt.adapters.evidence import takes_llm
from raybolt.adapters.patching import patched
from raybolt.env.chat import ChatRequest, ToolSpec, message_from_dict, message_to_dict
from raybolt.env.context import current_run, entering
from raybolt.store import names


class PolicyModel(Model):
    """The policy as a model of the toy framework; `own` answers what the policy does not take."""

    def __init__(self, adapter, port, own):
        self.adapter, self.port, self.own = adapter, port, own

    async def chat(self, agent, messages, schema=None):
        return await self.adapter.answer(self.port, self.own and self.own.chat, agent, messages, schema)

    async def stream(self, agent, messages):
        yield (await self.chat(agent, messages))["content"]  # in one piece, whoever answers


class ToyAdapter(Adapter):
    framework = "toy"
    supports = "a function build(llm), an Agent or a Team"
    libraries = frozenset({"toy_framework"})

    def check(self, agent):
        """Everything goes."""

    def default_name(self, agent):
        return "toy"

    @contextmanager
    def bind(self, agent, policy, *, role, frozen):
        tokens = [
            (on_tool, on_tool.set(self.tool_span)),
            (on_agent, on_agent.set(self.agent_span)),
            (on_hand_over, on_hand_over.set(self.hand_over)),
        ]
        try:
            if takes_llm(agent):
                yield agent(self.model(policy, frozen))
                return
            with captured_by(policy), patched(Model, {"chat": self.guard}):
                yield agent
        finally:
            for variable, token in tokens:
                variable.reset(token)

    def model(self, policy, frozen):
        return PolicyModel(self, policy, frozen)

    def guard(self, original):
        async def chat(model, agent, messages, schema=None):
            async def own(*args):
                return await original(model, *args)

            policy = captured_policy.get()
            if policy is None:
                return await own(agent, messages, schema)
            return await self.answer(policy, own, agent, messages, schema)

        return chat

    async def answer(self, policy, own, agent, messages, schema):
        request = self.request(agent, messages, schema)
        if own is None or policy.takes(request):
            return self.reply(await policy.complete(request))
        with own_call(policy, request) as seen:
            reply = await own(agent, messages, schema)
            self.tell(seen, reply)
        return reply

    def request(self, agent, messages, schema):
        return ChatRequest(
            messages=tuple(map(message_from_dict, messages)),
            tools=tuple(ToolSpec(name, tool.__doc__ or "") for name, tool in agent.tools.items()),
            response_format=schema and {"type": "json_schema", "json_schema": schema.model_json_schema()},
            role=agent.name,
        )

    def reply(self, completion):
        return message_to_dict(completion.message)

    def tell(self, seen, reply):
        num_in, num_out = reply["usage"]
        seen.reply(message_from_dict(reply), input_tokens=num_in, output_tokens=num_out)

    @contextmanager
    def tool_span(self, agent, name, arguments):
        span = self.begin(f"{names.EXECUTE_TOOL} {name}", {
            names.OPERATION: names.EXECUTE_TOOL, names.TOOL_NAME: name, names.TOOL_ARGUMENTS: arguments,
        })  # fmt: skip
        outcome = {}
        try:
            with entering(span_id=span.span_id):
                yield outcome
        except Exception as error:
            span.fail(error)
            raise
        span.end(attributes={names.TOOL_RESULT: outcome["result"]})

    @contextmanager
    def agent_span(self, agent):
        span = self.begin(f"agent {agent.name}", {
            names.OPERATION: names.INVOKE_AGENT, names.KIND: "agent", names.AGENT_NAME: agent.name,
        })  # fmt: skip
        with entering(role=agent.name, span_id=span.span_id):
            try:
                yield
            finally:
                span.end()

    def hand_over(self, source, target):
        attributes = {names.HANDOFF_SOURCE: source.name, names.HANDOFF_TARGET: target.name}
        self.begin(f"handoff {source.name} -> {target.name}", {names.KIND: "handoff", **attributes}).end()

    def begin(self, name, attributes):
        context = current_run.get()
        return context.run.recorder.begin(name, parent_id=context.span_id, attributes=attributes)

    def build(self, agent, llm):
        return agent(llm) if takes_llm(agent) else agent

    async def run(self, bound, task, inputs):
        given = inputs(task) if inputs else task.input
        result = bound.run(given) if hasattr(bound, "run") else bound(given)
        return await result if inspect.isawaitable(result) else result


__all__ = ["Agent", "PolicyModel", "ToyAdapter"]
