"""What reads recorded runs stands whatever a store takes under our names."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st

from raybolt.env.diagnosis import diagnose
from raybolt.env.exports import chats, preference_pairs, sft_examples, write_lines
from raybolt.env.foreign import sound
from raybolt.env.recorded import comparable_runs
from raybolt.store import Attempt, Rollout, RolloutConfig, RolloutData, Span, names

CALL = {
    names.CALL_ID: "c",
    names.AGENT_NAME: "writer",
    names.INPUT_MESSAGES: [{"role": "user", "content": "q"}],
    names.OUTPUT_MESSAGES: [{"role": "assistant", "content": "a"}],
    names.FINISH_REASONS: ["stop"],
    names.PROMPT_IDS: np.arange(3, dtype=np.int32),
    names.RESPONSE_IDS: np.arange(2, dtype=np.int32),
    names.REWARD: 1.5,
}
OURS = sorted({value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)})
TEXTS = st.sampled_from(
    ["", "x", "assistant", "user", "final_reward", "chat", "{}", "[/red]", "[", '{"a": NaN}']
)
LEAVES = (
    st.none()
    | st.booleans()
    | TEXTS
    | st.sampled_from([0, -1, 2**70, 10**400, 0.5, float("nan"), float("inf")])
)
KEYS = st.sampled_from(["role", "content", "tool_calls", "function", "name", "arguments", "id", "text"])
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner), max_leaves=8
)
VALUES = JSON | st.just(np.array([1.0, 2.0], np.float32))
CHANGES = st.dictionaries(st.sampled_from(OURS), VALUES, max_size=4)


def run_of(changes, metadata, status):
    spans = tuple(
        Span(
            rollout_id="r",
            attempt_id="a",
            sequence_id=number,
            trace_id="0" * 32,
            span_id=str(number),
            parent_id=None,
            name="span",
            start_time=1.0,
            end_time=2.0,
            status="ok",
            attributes=attributes,
        )
        for number, attributes in enumerate([{**CALL, **changes}, CALL, changes])
    )
    attempt = Attempt(
        rollout_id="r", attempt_id="a", sequence_id=1, status="succeeded", start_time=1.0, metadata=metadata
    )
    rollout = Rollout(
        rollout_id="r",
        input="x",
        group_id="g",
        mode="train",
        status=status,
        config=RolloutConfig(),
        start_time=1.0,
    )
    return RolloutData(rollout, attempt, spans)


@settings(deadline=None, max_examples=300)
@given(
    CHANGES,
    st.dictionaries(st.sampled_from(["error", "error_type", "origin", "reward"]), JSON),
    st.booleans(),
)
def test_no_value_under_our_names_stops_a_reader(tmp_path_factory, changes, metadata, failed):
    run = run_of(changes, metadata, "failed" if failed else "succeeded")
    other = replace(run, rollout=replace(run.rollout, rollout_id="r2"))
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    for rows in (chats([run]), sft_examples([run]), preference_pairs([run, other])):
        write_lines(file, rows)
    assert str(diagnose([run, other]).numbers)
    comparable_runs([run, other])


def test_what_is_sound_stays_as_it_is():
    run = run_of({}, {}, "succeeded")
    assert all(one is other for one, other in zip(sound(run.spans), run.spans, strict=True))
    (odd, _, _) = sound(run_of({names.REWARD: "good", "reward": "good"}, {}, "succeeded").spans)
    assert odd.attributes.keys() == {*CALL, "reward"} - {names.REWARD}
