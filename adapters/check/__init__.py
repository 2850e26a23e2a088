"""Conformance of a framework adapter: checks that anyone can run on their own adapter, without pytest.

::

    class MyKit(AgentKit):          # small agents of the framework, written as its users write them
        framework = "mine"
        …

    print(asyncio.run(run_checks(MyKit())))
"""

from raybolt.adapters.check.kit import AgentKit, NotOffered, Way
from raybolt.adapters.check.scripted import ScriptedPolicy, call, say

__all__ = ["AgentKit", "NotOffered", "ScriptedPolicy", "Way", "call", "say"]
