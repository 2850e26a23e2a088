"""Roles: how an environment names the agents that play them, and which tokens each of them speaks.

An agent id is its role; a second call of a role that is pending at the same time is `role#1`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import TypeAlias

from raybolt.env.codec import ChatCodec

Codecs: TypeAlias = ChatCodec | Callable[[str], ChatCodec]
"""One codec for all roles, or a function of the role where they differ: then roles have models of their own.

The function may raise `RoleWithoutPolicy`, which ends the run.
"""

_NUMBER = re.compile(r"#\d+$")


def codec_of(codecs: Codecs, role: str) -> ChatCodec:
    """The codec of a role."""
    return codecs if isinstance(codecs, ChatCodec) else codecs(role)


def free_agent_id(role: str, taken: Collection[str]) -> str:
    """The role, or the role with the smallest number that is not taken."""
    agent_id, number = role, 0
    while agent_id in taken:
        number += 1
        agent_id = f"{role}#{number}"
    return agent_id


def role_of(agent_id: str) -> str:
    """The role behind an agent id."""
    return _NUMBER.sub("", agent_id)
