"""CrewAI: `adapter` is the entry; the other files import CrewAI itself."""
