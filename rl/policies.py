"""Which policy answers which role, with what model and learning rate: a recipe's `policies` worked out.

Imports neither torch nor ray, as recipes do not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Self

from raybolt.env.errors import RoleWithoutPolicy
from raybolt.store.errors import InvalidValue

if TYPE_CHECKING:
    from raybolt.env.codec import ChatCodec
    from raybolt.rl.recipes import Recipe

SHARED: Final = "default_policy"
"""Id of the one policy that answers all roles; it is RLlib's own, so that it stays single-agent for RLlib."""

# Ids become names of folders and of metrics.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True, kw_only=True)
class PolicySpec:
    """One policy of a recipe: a model of its own, which answers and learns from the calls of some roles.

    Attributes:
        roles: patterns of role names, such as ("writer", "critic*"); `*`, `?` and `[…]` as in file names.
        model: hub id, local folder, `.gguf` file, "tiny" or "smollm2-135m"; None takes the recipe's.
        lr: learning rate; None takes the recipe's. 0 keeps the policy as it is.
    """

    roles: tuple[str, ...]
    model: str | None = None
    lr: float | None = None

    def __post_init__(self) -> None:
        roles = self.roles
        is_list = isinstance(roles, list | tuple)
        if not is_list or not roles or not all(isinstance(role, str) and role for role in roles):
            raise InvalidValue(
                f"PolicySpec.roles is {roles!r}; give a list of role names or patterns, such as ['writer*']."
            )
        object.__setattr__(self, "roles", tuple(roles))
        if self.model is not None and (not isinstance(self.model, str) or not self.model):
            raise InvalidValue(f"PolicySpec.model is {self.model!r}; give a model's name, or leave it out.")
        if self.lr is not None and (not isinstance(self.lr, int | float) or not self.lr >= 0):
            raise InvalidValue(f"PolicySpec.lr is {self.lr!r}; give a number that is 0 or more, or None.")


@dataclass(frozen=True)
class Policies:
    """The policies of a recipe, each with its settings; made by `of`.

    Attributes:
        models: the model of each policy, by its id.
        lrs: the learning rates of those that have their own.
        patterns: (pattern, policy id) in the order in which a role is compared with them; the first that
            matches decides.
    """

    models: Mapping[str, str]
    lrs: Mapping[str, float]
    patterns: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """Those that the recipe names, or the shared one."""
        if recipe.policies is None:
            return cls({SHARED: recipe.model}, {}, (("*", SHARED),))
        named = recipe.policies.items()
        return cls(
            models={policy_id: spec.model or recipe.model for policy_id, spec in named},
            lrs={policy_id: float(spec.lr) for policy_id, spec in named if spec.lr is not None},
            patterns=tuple((pattern, policy_id) for policy_id, spec in named for pattern in spec.roles),
        )

    @property
    def ids(self) -> tuple[str, ...]:
        """In the recipe's order."""
        return tuple(self.models)

    @property
    def shared(self) -> bool:
        """Whether one policy answers all roles without the recipe having named it."""
        return self.ids == (SHARED,)

    def of_role(self, role: str) -> str:
        """The id of the policy that answers a role.

        Raises:
            RoleWithoutPolicy: no pattern matches it.
        """
        for pattern, policy_id in self.patterns:
            if fnmatchcase(role, pattern):
                return policy_id
        known = ", ".join(f"{policy_id}: {pattern}" for pattern, policy_id in self.patterns)
        raise RoleWithoutPolicy(
            f"no policy answers the role {role!r} (the recipe's policies: {known}); add it to the roles of a "
            "PolicySpec, or leave it to a model of your own with raybolt.wrap(agent, trainable=[...])"
        )

    def codec_of(self, role: str) -> ChatCodec:
        """The codec of the model that answers a role; what `raybolt.demonstrate(codec=...)` takes.

        Raises:
            RoleWithoutPolicy: no pattern matches the role.
            UnknownModel: the policy's model cannot be loaded.
        """
        from raybolt.env.codec import codec_for

        return codec_for(self.models[self.of_role(role)])


def check_policies(recipe: str, policies: Any) -> None:
    """Raises InvalidValue unless `policies` can stand in the recipe of this name."""
    if policies is None:
        return
    where = f"{recipe}.policies"
    if not isinstance(policies, Mapping) or not policies:
        raise InvalidValue(
            f"{where} is {policies!r}; give a dictionary such as {{'writer': PolicySpec(roles=['w*'])}}, or "
            "leave it out for one policy that all roles share."
        )
    owner: dict[str, str] = {}
    for policy_id, spec in policies.items():
        if not isinstance(policy_id, str) or not _ID.fullmatch(policy_id) or policy_id == SHARED:
            raise InvalidValue(
                f"{where} names a policy {policy_id!r}; its folders and metrics are called so: give letters, "
                f"digits, '-' and '_', a letter or digit first, and not {SHARED!r}."
            )
        if not isinstance(spec, PolicySpec):
            raise InvalidValue(f"{where}[{policy_id!r}] is {spec!r}; give PolicySpec(roles=[...]).")
        for pattern in spec.roles:
            if pattern in owner:
                raise InvalidValue(
                    f"{where}[{policy_id!r}].roles has {pattern!r}, as {owner[pattern]!r} has, and the first "
                    "policy that matches a role answers it. Take the pattern out of one of them."
                )
            owner[pattern] = policy_id
