"""Teams of AutoGen, nested ones and agents as tools: whose call is whose."""

import asyncio
from collections.abc import Sequence

import pytest
from autogen_agentchat.agents import (
    AssistantAgent,
    BaseChatAgent,
    MessageFilterAgent,
    MessageFilterConfig,
    SocietyOfMindAgent,
)
from autogen_agentchat.base import Response
from autogen_agentchat.conditions import HandoffTermination, MaxMessageTermination, TextMentionTermination
from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_agentchat.teams import (
    DiGraphBuilder,
    GraphFlow,
    MagenticOneGroupChat,
    RoundRobinGroupChat,
    SelectorGroupChat,
    Swarm,
)
from autogen_agentchat.tools import AgentTool, TeamTool
from autogen_core.models import UserMessage
from autogen_ext.models.replay import ReplayChatCompletionClient

import raybolt
from raybolt.env.chat import ChatMessage, Completion


def roles(ran):
    return [request.role for request in ran.requests]


def said(ran):
    return [(m.source, m.to_model_text()) for m in ran.result.messages if isinstance(m, BaseChatMessage)]


def by_role(**replies):
    """A policy that answers each role with its replies, one after the other."""
    left = {role: list(texts) for role, texts in replies.items()}

    def policy(request):
        reply = left[request.role].pop(0)
        if isinstance(reply, str):
            return Completion(ChatMessage("assistant", reply))
        return reply

    return policy


async def test_a_round_robin_takes_turns_and_each_hears_the_others(agent_run):
    def build(llm):
        stop = TextMentionTermination("APPROVED")
        return RoundRobinGroupChat(
            [AssistantAgent("writer", llm), AssistantAgent("critic", llm)], termination_condition=stop
        )

    ran = await agent_run(build, "rhyme", by_role(writer=["rain", "pain"], critic=["no", "APPROVED"]))
    assert roles(ran) == ["writer", "critic", "writer", "critic"]
    assert ran.result.stop_reason == "Text 'APPROVED' mentioned"
    third = [(m.role, m.content) for m in ran.requests[2].messages[1:]]
    assert third == [("user", "rhyme"), ("assistant", "rain"), ("user", "no")]


async def test_the_selectors_own_calls_have_a_role_of_their_own(agent_run):
    def build(llm):
        return SelectorGroupChat(
            [AssistantAgent("writer", llm), AssistantAgent("critic", llm)],
            model_client=llm,
            termination_condition=MaxMessageTermination(3),
        )

    policy = by_role(SelectorGroupChatManager=["critic", "writer"], critic=["what?"], writer=["rain"])
    ran = await agent_run(build, "rhyme", policy)
    # With two members, who may not speak twice in a row, only the first choice is the selector's.
    assert roles(ran) == ["SelectorGroupChatManager", "critic", "writer"]
    assert [message.source for message in ran.result.messages] == ["user", "critic", "writer"]
    selecting = ran.span("chat SelectorGroupChatManager")
    assert ran.parent_name(selecting) == "agent SelectorGroupChatManager"
    assert ran.parent_name(ran.span("agent SelectorGroupChatManager")) == "team SelectorGroupChat"


async def test_a_selector_that_streams_is_answered_too(agent_run):
    def build(llm):
        return SelectorGroupChat(
            [AssistantAgent("writer", llm), AssistantAgent("critic", llm)],
            model_client=llm,
            max_turns=1,
            model_client_streaming=True,
        )

    ran = await agent_run(build, "rhyme", by_role(SelectorGroupChatManager=["critic"], critic=["what?"]))
    assert roles(ran) == ["SelectorGroupChatManager", "critic"]


async def test_members_of_a_swarm_hand_over_and_the_hand_offs_are_recorded(agent_run, script):
    def build(llm):
        writer = AssistantAgent("writer", llm, handoffs=["critic"])
        critic = AssistantAgent("critic", llm, handoffs=["writer", "user"])
        return Swarm([writer, critic], termination_condition=HandoffTermination("user"))

    policy = by_role(
        writer=[script.call(("transfer_to_critic", {}))], critic=[script.call(("transfer_to_user", {}))]
    )
    ran = await agent_run(build, "rhyme", policy)
    assert roles(ran) == ["writer", "critic"]
    first, second = [span for span in ran.spans if span.attributes.get("raybolt.kind") == "handoff"]
    assert (first.name, second.name) == ("handoff writer -> critic", "handoff critic -> user")
    assert first.attributes["raybolt.handoff.source"] == "writer"
    assert first.attributes["raybolt.handoff.target"] == "critic"
    assert ran.parent_name(first) == "agent writer"
    assert ran.parent_name(ran.span("execute_tool transfer_to_critic")) == "agent writer"


async def test_a_society_of_mind_and_its_inner_team_have_their_own_roles(agent_run):
    def build(llm):
        inner = RoundRobinGroupChat(
            [AssistantAgent("writer", llm), AssistantAgent("critic", llm)], max_turns=2
        )
        return RoundRobinGroupChat(
            [SocietyOfMindAgent("society", inner, llm), AssistantAgent("editor", llm)], max_turns=2
        )

    policy = by_role(writer=["rain"], critic=["good"], society=["rain it is"], editor=["printed"])
    ran = await agent_run(build, "rhyme", policy)
    assert roles(ran) == ["writer", "critic", "society", "editor"]
    assert said(ran)[-2:] == [("society", "rain it is"), ("editor", "printed")]
    inner, outer = sorted(
        (s for s in ran.spans if s.name == "team RoundRobinGroupChat"), key=lambda s: -s.sequence_id
    )
    assert ran.parent_name(inner) == "agent society"
    assert ran.parent_name(outer) == "invoke_agent agent"
    assert ran.parent_name(ran.span("chat society")) == "agent society"
    assert ran.span("agent writer").parent_id == inner.span_id


async def test_a_selector_inside_a_society_is_told_from_the_society(agent_run):
    def build(llm):
        inner = SelectorGroupChat(
            [AssistantAgent("writer", llm), AssistantAgent("critic", llm)], model_client=llm, max_turns=1
        )
        return SocietyOfMindAgent("society", inner, llm)

    policy = by_role(SelectorGroupChatManager=["critic"], critic=["what?"], society=["hm"])
    ran = await agent_run(build, "rhyme", policy)
    assert roles(ran) == ["SelectorGroupChatManager", "critic", "society"]


async def test_a_team_is_a_member_of_a_team(agent_run):
    def build(llm):
        inner = RoundRobinGroupChat(
            [AssistantAgent("writer", llm), AssistantAgent("critic", llm)], max_turns=2, name="authors"
        )
        return RoundRobinGroupChat([inner, AssistantAgent("editor", llm)], max_turns=2)

    ran = await agent_run(build, "rhyme", by_role(writer=["rain"], critic=["good"], editor=["printed"]))
    assert roles(ran) == ["writer", "critic", "editor"]
    assert ran.parent_name(ran.span("team authors")) == "team RoundRobinGroupChat"
    assert ran.parent_name(ran.span("agent critic")) == "team authors"


@pytest.mark.parametrize("as_team", [False, True])
async def test_an_agent_or_team_as_a_tool_keeps_its_own_role(agent_run, script, as_team):
    def build(llm):
        expert = AssistantAgent("expert", llm, description="Knows rain.")
        team = RoundRobinGroupChat([expert], max_turns=1)
        tool = TeamTool(team, "ask", "Asks.") if as_team else AgentTool(expert)
        return AssistantAgent("boss", llm, tools=[tool], reflect_on_tool_use=True)

    name = "ask" if as_team else "expert"
    policy = by_role(boss=[script.call((name, {"task": "rain?"})), "It is wet."], expert=["Rain is wet."])
    ran = await agent_run(build, "go", policy)
    assert roles(ran) == ["boss", "expert", "boss"]
    assert ran.requests[2].messages[-1].content == "expert: Rain is wet."
    tool = ran.span(f"execute_tool {name}")
    assert tool.attributes["gen_ai.tool.call.result"] == "expert: Rain is wet."
    assert tool.attributes["gen_ai.tool.call.arguments"] == {"task": "rain?"}
    home = "team RoundRobinGroupChat" if as_team else f"execute_tool {name}"
    assert ran.parent_name(ran.span("agent expert")) == home
    assert ran.parent_name(tool) == "agent boss"


async def test_parallel_members_of_a_graph_ask_at_the_same_time(agent_run):
    def build(llm):
        left, right = AssistantAgent("left", llm), AssistantAgent("right", llm)
        start, end = AssistantAgent("start", llm), AssistantAgent("end", llm)
        graph = DiGraphBuilder()
        for node in (start, left, right, end):
            graph.add_node(node)
        graph.add_edge(start, left).add_edge(start, right).add_edge(left, end).add_edge(right, end)
        return GraphFlow([start, left, right, end], graph.build())

    ran = await agent_run(build, "go", by_role(start=["a"], left=["b"], right=["c"], end=["d"]), delay_s=0.02)
    assert roles(ran)[0] == "start"
    assert sorted(roles(ran)[1:3]) == ["left", "right"]
    assert roles(ran)[3] == "end"
    for role in ("start", "left", "right", "end"):
        assert ran.parent_name(ran.span(f"chat {role}")) == f"agent {role}"


async def test_an_orchestrators_calls_are_its_own(agent_run):
    ledger = (
        '{"is_request_satisfied": {"reason": "", "answer": %s},'
        ' "is_progress_being_made": {"reason": "", "answer": true},'
        ' "is_in_loop": {"reason": "", "answer": false},'
        ' "instruction_or_question": {"reason": "", "answer": "write"},'
        ' "next_speaker": {"reason": "", "answer": "writer"}}'
    )

    def build(llm):
        return MagenticOneGroupChat([AssistantAgent("writer", llm)], model_client=llm)

    boss = ["facts", "plan", ledger % "false", ledger % "true", "the end"]
    ran = await agent_run(build, "go", by_role(MagenticOneOrchestrator=boss, writer=["rain"]))
    assert roles(ran) == ["MagenticOneOrchestrator"] * 3 + ["writer"] + ["MagenticOneOrchestrator"] * 2
    assert said(ran)[-1] == ("MagenticOneOrchestrator", "the end")


class Asking(BaseChatAgent):
    """An agent of the user's own that calls the client itself."""

    def __init__(self, name, llm):
        super().__init__(name, "Asks.")
        self._llm = llm

    @property
    def produced_message_types(self):
        return (TextMessage,)

    async def on_messages(self, messages: Sequence[BaseChatMessage], cancellation_token):
        asked = [UserMessage(content=message.to_model_text(), source="user") for message in messages]
        replies = await asyncio.gather(*(self._llm.create(asked) for _ in range(2)))
        text = " ".join(reply.content for reply in replies)
        return Response(chat_message=TextMessage(content=text, source=self.name))

    async def on_reset(self, cancellation_token): ...


async def test_an_agent_of_the_users_own_class_has_its_name_as_role(agent_run):
    def build(llm):
        return RoundRobinGroupChat([Asking("asker", llm), AssistantAgent("critic", llm)], max_turns=2)

    ran = await agent_run(build, "go", by_role(asker=["a", "b"], critic=["c"]))
    assert roles(ran) == ["asker", "asker", "critic"]
    assert said(ran)[1] == ("asker", "a b")


async def test_a_class_that_the_factory_itself_defines_is_known_too(agent_run):
    def build(llm):
        class Local(Asking):
            async def on_messages(self, messages, cancellation_token):
                return await super().on_messages(messages, cancellation_token)

        return Local("asker", llm)

    ran = await agent_run(build, "go", by_role(asker=["a", "b"]), framework="autogen")
    assert len([span for span in ran.spans if span.name == "agent asker"]) == 1


async def test_an_agent_that_wraps_another_leaves_the_calls_with_the_inner_one(agent_run):
    def build(llm):
        inner = AssistantAgent("inner", llm)
        return MessageFilterAgent("outer", inner, MessageFilterConfig(per_source=[]))

    ran = await agent_run(build, "go", by_role(inner=["x"]), framework="autogen")
    assert roles(ran) == ["inner"]
    assert ran.parent_name(ran.span("agent inner")) == "agent outer"


async def test_only_the_trainable_members_calls_reach_the_policy(agent_run):
    own = ReplayChatCompletionClient(["critic", "I object."])
    team = SelectorGroupChat(
        [AssistantAgent("writer", own), AssistantAgent("critic", own)], model_client=own, max_turns=2
    )
    agent = raybolt.wrap(team, trainable=["writer"])
    ran = await agent_run(agent, "rhyme", by_role(writer=["rain"]))
    assert roles(ran) == ["writer"]
    assert said(ran) == [("user", "rhyme"), ("critic", "I object."), ("writer", "rain")]
    observed = [span.name for span in ran.spans if span.attributes.get("raybolt.trainable") is False]
    assert observed == ["chat SelectorGroupChatManager", "chat critic"]


async def test_a_stream_of_the_agents_own_client_is_passed_on_and_recorded(agent_run):
    def build():
        async def ask(question):
            own = ReplayChatCompletionClient(["one two three"])
            critic = AssistantAgent("critic", own, model_client_stream=True)
            writer = AssistantAgent("writer", own)
            chunks = [
                event.content
                async for event in critic.run_stream(task=question)
                if event.__class__.__name__ == "ModelClientStreamingChunkEvent"
            ]
            return chunks, (await writer.run(task="and?")).messages[-1].content

        return ask

    agent = raybolt.wrap(build, trainable=["writer"], framework="autogen")
    ran = await agent_run(agent, "go", by_role(writer=["rain"]))
    chunks, text = ran.result
    assert ("".join(chunks), len(chunks), text) == ("one two three", 3, "rain")
    reply = ran.span("chat critic").attributes["gen_ai.output.messages"]
    assert reply == [{"role": "assistant", "content": "one two three"}]
