"""The learner's groups, where the object store has no room for all of them at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from raybolt.rl.algorithm import LightningRLAlgorithm
from raybolt.store import StoreFull


class Hands:
    """A store that answers as it is told: with groups, or an error."""

    def __init__(self, *answers: list[str] | StoreFull) -> None:
        self.answers = list(answers)
        self.asked: list[int] = []

    async def take_groups(self, limit: int, *, group_id_in: Any) -> list[str]:
        self.asked.append(limit)
        answer = self.answers.pop(0)
        if isinstance(answer, StoreFull):
            raise answer
        return answer


def taken(store: Hands) -> list[Any]:
    return LightningRLAlgorithm._take(SimpleNamespace(_store=store), ["a", "b", "c"])  # type: ignore[arg-type]


def test_what_did_not_fit_at_first_is_asked_for_again() -> None:
    store = Hands(["a", "b"], ["c"])
    assert taken(store) == ["a", "b", "c"]
    assert store.asked == [3, 1]


def test_no_iteration_silently_learns_from_fewer_groups_than_there_are() -> None:
    with pytest.raises(StoreFull, match="no room"):
        taken(Hands(["a", "b"], StoreFull("no room")))


def test_groups_that_others_took_are_not_waited_for() -> None:
    assert taken(Hands(["a"], [])) == ["a"]
