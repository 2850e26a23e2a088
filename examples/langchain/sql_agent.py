"""An agent as LangChain's tutorials teach it: a chat model, a tool, `create_agent`. Nothing is raybolt's.

With a key in OPENAI_API_KEY, `python sql_agent.py` asks OpenAI.
"""

import os
import sqlite3
from contextlib import closing

from langchain.agents import create_agent
from langchain_openai import ChatOpenAI

SCHEMA = "singer(singer_id, name, city, age)"

model = ChatOpenAI(model="gpt-5-mini", api_key=os.environ.get("OPENAI_API_KEY", "none"))


def run_sql(query: str) -> str:
    """Run a SQLite query and see its rows."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE TABLE {SCHEMA}")
        try:
            return str(connection.execute(query).fetchall())
        except (sqlite3.Error, sqlite3.Warning) as error:
            return f"error: {error}"


agent = create_agent(model, [run_sql], system_prompt="Answer with one SQLite query.", name="writer")


def answer(question: str) -> str:
    """The query that the agent answers a question with."""
    state = agent.invoke({"messages": [{"role": "user", "content": f"{SCHEMA}\n{question}"}]})
    return state["messages"][-1].text


if __name__ == "__main__":
    print(answer("How many singers are there?"))
