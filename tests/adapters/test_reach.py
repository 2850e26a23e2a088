"""The walk through what an agent holds."""

import functools
import types

import pytest

from raybolt.adapters.reach import reachable


class Model:
    """What is looked for."""


IN_A_GLOBAL = Model()
settings = types.ModuleType("settings")
settings.llm = Model()


class Slotted:
    __slots__ = ("llm",)

    def __init__(self, llm):
        self.llm = llm


class Bound:
    def __init__(self, llm):
        self.llm = llm

    def method(self):
        """Found by its object."""


def found(holder, libraries=frozenset()):
    walk = reachable(holder, libraries=libraries, is_leaf=lambda value: isinstance(value, Model))
    return [value for value in walk if isinstance(value, Model)]


def in_closure(llm):
    return lambda: llm


def in_default(llm):
    def function(llm=llm):
        return llm

    return function


def in_keyword_default(llm):
    def function(*, llm=llm):
        return llm

    return function


def in_attribute(llm):
    def function():
        """Holds it as an attribute, as decorators leave things."""

    function.llm = llm
    return function


def in_private_field(llm):
    pydantic = pytest.importorskip("pydantic")

    class Agent(pydantic.BaseModel):
        _llm: object = pydantic.PrivateAttr()

    agent = Agent()
    agent._llm = llm
    return agent


@pytest.mark.parametrize(
    "hold",
    [
        lambda llm: llm,
        lambda llm: [{"a": (llm,)}],
        lambda llm: {frozenset({llm})},
        in_closure,
        in_default,
        in_keyword_default,
        in_attribute,
        in_private_field,
        lambda llm: functools.partial(print, llm),
        lambda llm: functools.partial(print, end=llm),
        lambda llm: Bound(llm).method,
        Slotted,
        Bound,
    ],
)
def test_a_model_is_found_wherever_it_is_held(hold):
    llm = Model()
    assert found(hold(llm)) == [llm]


def test_a_global_is_found_by_its_name_and_by_that_of_its_module():
    def by_name():
        return IN_A_GLOBAL

    def by_module():
        return [settings.llm for _ in range(2)]

    assert found(by_name) == [IN_A_GLOBAL]
    assert found(by_module) == [settings.llm]
    assert found(by_name, libraries=frozenset({by_name.__module__.partition(".")[0]})) == []


def test_each_object_is_seen_once_nearest_first_and_a_cycle_ends_the_walk():
    near, far = Model(), Model()
    holder = [[[far]], near, near]
    holder.append(holder)
    assert found(holder) == [near, far]


def test_a_leaf_is_not_looked_into():
    inner, outer = Model(), Model()
    outer.inner = inner
    assert found([outer]) == [outer]
