"""Pages of answers: bounded by bytes, too; and JSON that every language reads."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from store_http import request, served
from store_samples import make_call_span

from raybolt.store import EnqueueRolloutRequest, HttpStore, InvalidValue, LocalStore, names
from raybolt.store.server import pages

HUGE = 6_000


def refuse(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


def strictly(body: bytes) -> Any:
    return json.loads(body, parse_constant=refuse)


@pytest.mark.parametrize("step", [2, 1000])
async def test_a_page_ends_where_it_would_be_too_long(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    monkeypatch.setattr(pages, "PAGE_BYTES", 2 * HUGE + HUGE // 2)
    monkeypatch.setattr(pages, "_STEP", step)
    async with LocalStore() as local:
        with served(local) as server:
            async with HttpStore(server.url) as store:
                inputs = ["x" * (HUGE if index != 4 else 9 * HUGE) for index in range(9)]
                await store.enqueue_many_rollouts([EnqueueRolloutRequest(input=each) for each in inputs])
                assert [each.input for each in await store.query_rollouts()] == inputs
                for limit, offset in ((7, 0), (2, 3), (1, 4), (0, 0), (5, 6), (99, 20)):
                    found = await store.query_rollouts(limit=limit, offset=offset)
                    assert [each.input for each in found] == inputs[offset : offset + limit]
                with pytest.raises(InvalidValue, match="limit"):
                    await store.query_rollouts(limit=-2)
                ran = await store.start_rollout("x")
                spans = [make_call_span(ran.attempt, number) for number in range(1, 8)]
                ids = np.arange(HUGE // 4, dtype=np.int32)
                spans = [replace(span, attributes={names.PROMPT_IDS: ids}) for span in spans]
                await store.add_many_spans(spans)
                read = await store.query_spans(ran.rollout_id)
                assert [span.span_id for span in read] == [span.span_id for span in spans]
            lengths, offset = [], 0
            while offset is not None:
                page = strictly(request(server, "GET", f"/v1/rollouts?offset={offset}").body)
                lengths.append(len(page["items"]))
                offset = page["next_offset"]
    assert lengths == [2, 2, 1, 2, 3]


async def test_numbers_that_json_lacks_are_texts_for_all_but_our_own_client() -> None:
    odd = {"a": float("nan"), "b": [float("inf"), -float("inf")], "c": "NaN", "d": 1.5}
    async with LocalStore() as local:
        with served(local) as server:
            async with HttpStore(server.url) as store:
                ran = await store.start_rollout(odd, rollout_id="r", metadata=odd)
                span = replace(
                    make_call_span(ran.attempt, 1),
                    attributes={**odd, "x": np.array([1, np.nan, np.inf, -np.inf], np.float32)},
                )
                await store.add_span(span)
                found = await store.get_rollout_by_id("r")
                assert found is not None
                assert repr(found.input) == repr(found.metadata) == repr(odd)
                (read,) = await store.query_spans("r")
                assert repr({**read.attributes, "x": 0}) == repr({**odd, "x": 0})
            plain = {"a": "NaN", "b": ["Infinity", "-Infinity"], "c": "NaN", "d": 1.5}
            for path in ("/v1/rollouts/r", "/v1/rollouts", "/v1/rollouts/r/spans"):
                answer = request(server, "GET", path)
                told = strictly(answer.body)
                (item,) = told.get("items", [told])
                assert item.get("input", plain) == plain
            assert item["attributes"] == plain
            assert item["arrays"] == {
                "x": {"dtype": "float32", "values": [1.0, "NaN", "Infinity", "-Infinity"]}
            }
            again = {**item, "span_id": "again", "sequence_id": 2}
            sent = request(server, "POST", "/v1/spans", json.dumps({"spans": [again]}).encode())
            assert sent.status == 200, sent.body
            again["arrays"]["x"]["dtype"] = "int32"
            assert request(server, "POST", "/v1/spans", json.dumps({"spans": [again]}).encode()).status == 400
        _, second = await local.query_spans("r")
        np.testing.assert_array_equal(second.attributes["x"], np.array([1, np.nan, np.inf, -np.inf]))


async def test_a_weight_of_zero_forbids() -> None:
    async with LocalStore() as local:
        ran = await local.start_rollout("x" * 5000, rollout_id="r")
        await local.add_span(make_call_span(ran.attempt, 1))
        with served(local) as server:

            def headers(path: str, **given: str) -> Any:
                return request(
                    server,
                    "GET",
                    path,
                    headers={name.replace("_", "-"): each for name, each in given.items()},
                ).headers

            for weight, packed in (("", True), (";q=0.1", True), (";q=0", False), ("; q=0.000", False)):
                coding = headers("/v1/rollouts/r", Accept_Encoding=f"br, gzip{weight}").get(
                    "Content-Encoding"
                )
                assert (coding == "gzip") == packed
                rows = f"application/vnd.raybolt.rows{weight}"
                kind = headers("/v1/rollouts/r/spans", Accept=rows)["Content-Type"]
                assert kind.startswith("application/vnd.raybolt.rows" if packed else "application/json")
