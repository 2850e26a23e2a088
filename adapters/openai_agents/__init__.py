"""The OpenAI Agents SDK: `adapter` is the entry; `capture` serves agents that nobody wrapped."""
