"""Plain Python with the `openai` client: `adapter` is the entry, `transport` catches its requests."""
