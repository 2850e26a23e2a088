"""The toy framework's agents for the conformance checks."""

import asyncio

from toy_adapter import ToyAdapter
from toy_framework import Agent, Model, Team

from raybolt.adapters.check import NOWHERE, AgentKit, call


def solo(llm):
    return Agent("writer", llm)


def two_roles(llm):
    return Team(Agent("writer", llm), Agent("critic", llm))


def hand_off(llm):
    return Agent("writer", llm, colleague=Agent("critic", llm))


class Streamer(Agent):
    async def run(self, text):
        return "".join(
            [piece async for piece in self.model.stream(self, [{"role": "user", "content": text}])]
        )


def streaming(llm):
    return Streamer("writer", llm)


class Three(Agent):
    async def run(self, text):
        return " ".join(await asyncio.gather(*(Agent.run(self, f"{text} {number}") for number in range(3))))


def parallel(llm):
    return Three("writer", llm)


class Late(Agent):
    async def run(self, text):
        self.model = Model(NOWHERE)
        return await super().run(text)


class ToyKit(AgentKit):
    framework = "toy"
    adapter = ToyAdapter()

    def brought(self, build, way):
        return build if way == "factory" else build(Model(NOWHERE))

    def solo(self, way):
        return self.brought(solo, way)

    def with_tools(self, way, tools):
        return self.brought(lambda llm: Agent("writer", llm, tools), way)

    def two_roles(self, way):
        return self.brought(two_roles, way)

    def hand_off(self, way):
        return self.brought(hand_off, way)

    def hand_off_reply(self, request):
        return call(("hand_over", {}))

    def structured(self, way, schema):
        return self.brought(lambda llm: Agent("writer", llm, schema=schema), way)

    def streaming(self, way):
        return self.brought(streaming, way)

    def parallel(self, way):
        return self.brought(parallel, way)

    def late_model(self):
        return Late("writer", None)

    def text(self, result):
        return result

    def own_model(self, base_url):
        return Model(base_url)

    def own_agent(self, base_url):
        return two_roles(Model(base_url))
