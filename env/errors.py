"""What can go wrong in an environment, below `raybolt.store.errors.RayboltError`.

    RayboltError
    ├── InvalidValue
    │   ├── UnknownModel    no model can be loaded under this name
    │   ├── NoCall          a run ended without an LLM call that could be seen
    │   └── NoReward        a run ended without a reward
    ├── ContextTooLong      a prompt leaves the model no room for an answer
    ├── TemplateError       the tokenizer's chat template cannot express the conversation
    ├── RoleWithoutPolicy   a role's call reached the policies, and none is for it
    ├── BlockingCall        blocking agent code would stop the event loop its run lives in
    ├── ReplayDiverged      a replayed agent did something else than in the recorded run
    └── RunOver             a run or environment was used after its end, or before its start

`PolicyAbort` (in `env.policy`) stands apart: it is a `BaseException` that ends an agent from inside.
"""

from __future__ import annotations

from raybolt.store.errors import InvalidValue, RayboltError


class UnknownModel(InvalidValue):
    """No model can be loaded under this name; the message says what is missing and what to do."""


class NoCall(InvalidValue):
    """A run ended without an LLM call that could be seen."""


class NoReward(InvalidValue):
    """A run ended without a reward."""


class ContextTooLong(RayboltError):
    """A prompt leaves the model no room for an answer."""


class TemplateError(RayboltError):
    """The tokenizer's chat template cannot express the conversation."""


class RoleWithoutPolicy(RayboltError):
    """A role's call reached the policies, and none is for it."""


class BlockingCall(RayboltError):
    """Blocking agent code would stop the event loop its run lives in."""


class ReplayDiverged(RayboltError):
    """A replayed agent did something else than in the recorded run; the message says where and what."""


class RunOver(RayboltError):
    """A run or environment was used after its end, or before its start."""
