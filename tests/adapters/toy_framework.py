"""The smallest agent framework that has everything: tools, hand-overs, teams, streams, structured output."""

import asyncio
import inspect
import json
from contextlib import contextmanager
from contextvars import ContextVar

import httpx


@contextmanager
def _no_hook(agent, name, arguments):
    yield {}


on_tool = ContextVar("toy_on_tool", default=_no_hook)
on_agent = ContextVar("toy_on_agent", default=lambda agent: _no_hook(agent, "", {}))
on_hand_over = ContextVar("toy_on_hand_over", default=lambda source, target: None)


class Model:
    """A client of an OpenAI-compatible server."""

    def __init__(self, base_url):
        self.base_url = base_url

    async def chat(self, agent, messages, schema=None):
        body = {"model": "toy", "messages": messages}
        async with httpx.AsyncClient() as client:
            answer = (await client.post(f"{self.base_url}/chat/completions", json=body)).json()
        usage = answer["usage"]
        return answer["choices"][0]["message"] | {
            "usage": (usage["prompt_tokens"], usage["completion_tokens"])
        }

    async def stream(self, agent, messages):
        text = (await self.chat(agent, messages))["content"]
        for piece in (text[:3], text[3:]):
            yield piece


class Agent:
    def __init__(self, name, model, tools=(), schema=None, colleague=None):
        self.name, self.model, self.schema, self.colleague = name, model, schema, colleague
        self.tools = {tool.__name__: tool for tool in tools}

    async def run(self, text, before=()):
        messages = [*before, {"role": "user", "content": text}]
        with on_agent.get()(self):
            while True:
                reply = await self.model.chat(self, messages, self.schema)
                messages.append({name: value for name, value in reply.items() if name != "usage"})
                calls = reply.get("tool_calls") or ()
                if not calls:
                    break
                if any(call["function"]["name"] == "hand_over" for call in calls):
                    on_hand_over.get()(self, self.colleague)
                    return await self.colleague.run("You take over.", messages)
                messages += await asyncio.gather(*map(self._use, calls))
        return self.schema.model_validate_json(reply["content"]) if self.schema else reply["content"]

    async def _use(self, call):
        name, text = call["function"]["name"], call["function"]["arguments"]
        answer = {"role": "tool", "tool_call_id": call["id"]}
        try:
            arguments = json.loads(text)
            with on_tool.get()(self, name, arguments) as outcome:
                result = self.tools[name](**arguments)
                outcome["result"] = await result if inspect.isawaitable(result) else result
            return answer | {"content": str(outcome["result"])}
        except Exception as error:  # as frameworks do: the model is told
            return answer | {"content": f"error: {error!r}"}


class Team:
    """Agents that work one after another, each on what the one before said."""

    def __init__(self, *agents):
        self.agents = agents

    async def run(self, text):
        for agent in self.agents:
            text = await agent.run(text)
        return text
