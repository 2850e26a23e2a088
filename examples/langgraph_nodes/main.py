"""Two roles in a hand-written LangGraph graph, with rewards given inside the run as it goes.

A writer writes a query and a critic looks at it. Each node rewards itself with `raybolt.emit_reward`; the
rewards of a run add up. Outside a raybolt run those lines do nothing, so the graph can be deployed as it is.
"""

import argparse
import sqlite3
from contextlib import closing
from pathlib import Path

from langgraph.graph import END, START, MessagesState, StateGraph

import raybolt

SCHEMA = "singer(singer_id, name, city, age)"
QUESTIONS = [
    "Show the name of each singer.",
    "How many singer are there?",
    "Show the city of each singer.",
    "Show age.",
]


def runs(reply: str) -> bool:
    """Whether SQLite accepts the first line of a reply on the schema."""
    sql = reply.strip().partition("\n")[0]
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE TABLE {SCHEMA}")
        try:
            connection.execute(sql).fetchall()
        except (sqlite3.Error, sqlite3.Warning):
            return False
    return bool(sql)


def build_graph(llm):
    """The graph on a chat model of LangChain's. Node names are the roles that raybolt sees."""

    async def writer(state: MessagesState):
        reply = await llm.ainvoke([("system", "Answer with one SQLite query."), *state["messages"]])
        raybolt.emit_reward(0.5 * runs(reply.text))
        return {"messages": [reply]}

    async def critic(state: MessagesState):
        question, draft = state["messages"][0].text, state["messages"][-1].text
        with raybolt.operation("review", draft=draft):
            reply = await llm.ainvoke([("system", "Repair the query."), ("user", f"{question}\n{draft}")])
            raybolt.emit_reward(0.5 * runs(reply.text))
        return {"messages": [reply]}

    graph = StateGraph(MessagesState)
    graph.add_node("writer", writer)
    graph.add_node("critic", critic)
    graph.add_edge(START, "writer")
    graph.add_edge("writer", "critic")
    graph.add_edge("critic", END)
    return graph.compile()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/langgraph_nodes"))
    parser.add_argument("--short", action="store_true", help="just enough to see that it runs")
    arguments = parser.parse_args()

    tasks = [raybolt.Task(f"task-{number}", f"{SCHEMA}\n{text}") for number, text in enumerate(QUESTIONS)]
    recipe = raybolt.LightningRL(
        iterations=2 if arguments.short else 12, tasks_per_iteration=4, rollouts_per_task=8, max_new_tokens=32
    )
    agent = raybolt.wrap(build_graph, limits=raybolt.RunLimits(max_calls=4, max_seconds=60))
    with raybolt.Trainer(agent, algorithm=recipe, store=arguments.out) as trainer:
        result = trainer.fit(tasks)
    print("mean reward of each iteration:", *(f"{reward:.2f}" for reward in result.reward_curve))


if __name__ == "__main__":
    main()
