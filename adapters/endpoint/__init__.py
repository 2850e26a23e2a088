"""An OpenAI-compatible endpoint for agents in other processes: a server a process, a path and a key a run."""
