"""Traces into a store that is full: somebody's real work, which must not fail for it."""

from pathlib import Path

import pytest

import raybolt
from raybolt.adapters import trace
from raybolt.store import LocalStore


async def test_a_traced_functions_result_is_returned_though_its_spans_find_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trace, "_ROOM_SECONDS", 0.05)
    async with LocalStore(tmp_path, reserve_bytes=2**60) as store:

        @raybolt.trace(store)
        async def answer(question: str) -> str:
            raybolt.emit_reward(1.0)
            return f"{question} 42"

        assert await answer("How many?") == "How many? 42"
        (rollout,) = await store.query_rollouts()
        attempt = await store.get_latest_attempt(rollout.rollout_id)
        assert attempt is not None
        assert (rollout.status, attempt.metadata["origin"]) == ("failed", "store")
        assert "found no room in the store within 0.05 s" in attempt.metadata["error"]
        assert "reward" not in attempt.metadata
    assert f"Rollout {rollout.rollout_id} failed: its " in caplog.text
