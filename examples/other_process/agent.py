"""An agent as its author wrote it: reads a question, asks an LLM twice, prints an answer."""

import json
import sys

from openai import OpenAI

SYSTEM = {"writer": "You answer in one line.", "editor": "You shorten what you are given."}


def ask(client: OpenAI, role: str, text: str) -> str:
    reply = client.chat.completions.create(
        model="gpt-5-mini",
        messages=[{"role": "system", "content": SYSTEM[role]}, {"role": "user", "content": text}],
        max_completion_tokens=24,
        extra_headers={"X-Raybolt-Role": role},  # optional: says which agent asks; OpenAI ignores it
    )
    return reply.choices[0].message.content or ""


def main() -> None:
    question = json.load(sys.stdin)
    with OpenAI() as client:
        draft = ask(client, "writer", question)
        print(json.dumps({"draft": draft, "answer": ask(client, "editor", draft)}))


if __name__ == "__main__":
    main()
