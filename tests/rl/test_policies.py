"""Recipes with several policies: which role is whose, and what cannot be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from raybolt.env.codec import codec_for
from raybolt.env.errors import RoleWithoutPolicy
from raybolt.rl.plan import plan_rl, plan_sft
from raybolt.rl.policies import Policies, PolicySpec
from raybolt.rl.recipes import SFT, LightningRL, recipe_from_dict, recipe_to_dict
from raybolt.store.errors import InvalidValue

WRITER_AND_REST = {"writer": PolicySpec(roles=["writer*"]), "rest": PolicySpec(roles=["*"], lr=0.0)}


def test_without_policies_one_answers_every_role() -> None:
    policies = Policies.of(LightningRL(model="smollm2-135m"))

    assert policies.shared
    assert policies.models == {"default_policy": "smollm2-135m"}
    assert [policies.of_role(role) for role in ("agent", "critic", "")] == ["default_policy"] * 3


def test_a_role_goes_to_the_first_policy_that_it_matches() -> None:
    policies = Policies.of(LightningRL(policies=WRITER_AND_REST))

    assert not policies.shared
    assert policies.ids == ("writer", "rest")
    assert [policies.of_role(role) for role in ("writer", "writer-2", "Writer")] == [
        "writer",
        "writer",
        "rest",
    ]


def test_a_role_that_matches_none_is_named_with_the_remedy() -> None:
    policies = Policies.of(SFT(policies={"team": PolicySpec(roles=("writer*", "critic"))}))

    with pytest.raises(
        RoleWithoutPolicy,
        match=r"answers the role 'judge' \(the recipe's policies: team: writer\*, team: critic\); add it to",
    ):
        policies.of_role("judge")


def test_what_a_policy_leaves_out_is_the_recipes() -> None:
    own = PolicySpec(roles=("b",), model="smollm2-135m", lr=0.5)
    recipe = LightningRL(model="tiny", lr=0.1, policies={"a": PolicySpec(roles=("a",)), "b": own})
    policies, plan = Policies.of(recipe), plan_rl(recipe, seed=0, fresh_optimizer=False)

    assert policies.models == {"a": "tiny", "b": "smollm2-135m"}
    assert (plan.lr_of("a"), plan.lr_of("b")) == (0.1, 0.5)
    assert policies.codec_of("a") is codec_for("tiny")


def test_the_warm_up_trains_every_policy_at_its_own_rate() -> None:
    recipe = LightningRL(policies=WRITER_AND_REST, warmup=SFT(lr=0.3))
    plan = plan_sft(recipe.warmup, num_tokens=9, seed=0, fresh_optimizer=True)

    assert (plan.lr_of("writer"), plan.lr_of("rest")) == (0.3, 0.3)


def test_a_recipe_with_policies_survives_json() -> None:
    recipe = LightningRL(policies=WRITER_AND_REST, warmup=SFT())

    assert recipe_from_dict(json.loads(json.dumps(recipe_to_dict(recipe)))) == recipe


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"roles": "writer"}, r"PolicySpec.roles is 'writer'; give a list of role names or patterns"),
        ({"roles": []}, r"PolicySpec.roles is \[\]"),
        ({"roles": ["a", ""]}, r"PolicySpec.roles is \['a', ''\]"),
        ({"roles": ["a"], "lr": -1}, r"PolicySpec.lr is -1; give a number that is 0 or more"),
        ({"roles": ["a"], "model": ""}, r"PolicySpec.model is ''; give a model's name"),
    ],
)
def test_a_mistake_in_a_policy_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        PolicySpec(**settings)


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ({}, r"LightningRL.policies is {}; give a dictionary such as"),
        (["writer"], r"LightningRL.policies is \['writer'\]; give a dictionary"),
        ({"a": ["writer"]}, r"LightningRL.policies\['a'\] is \['writer'\]; give PolicySpec\(roles="),
        ({"a/b": PolicySpec(roles=["x"])}, r"names a policy 'a/b'; .* give letters, digits, '-' and '_'"),
        ({"default_policy": PolicySpec(roles=["x"])}, r"names a policy 'default_policy'; .* and not"),
        (
            {"a": PolicySpec(roles=["x", "y"]), "b": PolicySpec(roles=["y"])},
            r"policies\['b'\].roles has 'y', as 'a' has, and the first policy that matches a role answers it",
        ),
    ],
)
def test_a_mistake_among_policies_is_named(policies: Any, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        LightningRL(policies=policies)


def test_policies_of_a_warm_up_are_refused() -> None:
    with pytest.raises(InvalidValue, match=r"warmup has policies of its own; .*: give them there"):
        LightningRL(warmup=SFT(policies=WRITER_AND_REST))
