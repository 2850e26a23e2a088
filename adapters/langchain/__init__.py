"""LangChain and LangGraph: `adapter` is the entry; the other files import LangChain itself."""
