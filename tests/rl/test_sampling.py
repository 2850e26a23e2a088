from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from raybolt.rl.engines.sampling import sample_tokens
from raybolt.rl.errors import EngineError

PROBS = [0.5, 0.25, 0.125, 0.125]
LOGITS = torch.tensor([PROBS]).log() + 3.0


def sample(uniform: float, *, temperature: float = 1.0, top_p: float = 1.0) -> tuple[int, float]:
    tokens, logps = sample_tokens(LOGITS, temperatures=[temperature], top_ps=[top_p], uniforms=[uniform])
    return tokens[0], logps[0]


@pytest.mark.parametrize(
    ("uniform", "token"), [(0.0, 0), (0.49, 0), (0.51, 1), (0.74, 1), (0.76, 2), (0.88, 3), (1 - 2**-53, 3)]
)
def test_the_token_is_the_first_whose_cumulative_probability_exceeds_the_number(
    uniform: float, token: int
) -> None:
    assert sample(uniform) == (token, pytest.approx(math.log(PROBS[token]), abs=1e-6))


def test_temperature_reshapes_what_is_sampled_and_reported() -> None:
    # At temperature 1/2 probabilities are squared: 1/4, 1/16, 1/64, 1/64 of 11/32 altogether.
    token, logp = sample(0.72, temperature=0.5)
    assert token == 0
    assert logp == pytest.approx(math.log(8 / 11), abs=1e-6)


def test_zero_temperature_takes_the_likeliest_and_reports_it_at_temperature_one() -> None:
    assert sample(0.99, temperature=0.0) == (0, pytest.approx(math.log(0.5), abs=1e-6))


def test_top_p_samples_from_the_nucleus_and_reports_the_untruncated_log_probability() -> None:
    # The nucleus of 0.6 is {0, 1}; in it, 0 has 2/3.
    assert sample(0.66, top_p=0.6)[0] == 0
    assert sample(0.999, top_p=0.6) == (1, pytest.approx(math.log(0.25), abs=1e-6))
    assert sample(0.999, top_p=1e-9)[0] == 0


def test_rows_of_all_kinds_share_a_batch() -> None:
    tokens, _ = sample_tokens(
        LOGITS.expand(4, -1),
        temperatures=[1.0, 0.0, 1.0, 2.0],
        top_ps=[1.0, 1.0, 0.5, 1.0],
        uniforms=[0.9, 0.9, 0.9, 0.9],
    )
    assert tokens == [3, 0, 0, 3]


def test_a_token_without_probability_is_never_sampled() -> None:
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0, -math.inf]])
    drawn = {
        sample_tokens(logits, temperatures=[1.0], top_ps=[1.0], uniforms=[u])[0][0]
        for u in (0.0, 0.3, 0.5, 0.7, 1 - 2**-53)
    }
    assert drawn == {1, 3}


def test_samples_follow_the_distribution() -> None:
    uniforms = np.random.default_rng(0).random(20_000).tolist()
    tokens, _ = sample_tokens(
        LOGITS.expand(20_000, -1), temperatures=[1.0] * 20_000, top_ps=[1.0] * 20_000, uniforms=uniforms
    )
    frequencies = np.bincount(tokens, minlength=4) / 20_000
    np.testing.assert_allclose(frequencies, PROBS, atol=0.01)


@pytest.mark.parametrize("damage", [math.nan, math.inf])
def test_broken_logits_are_an_error(damage: float) -> None:
    logits = LOGITS.clone()
    logits[0, 2] = damage
    with pytest.raises(EngineError, match="not finite"):
        sample_tokens(logits, temperatures=[1.0], top_ps=[1.0], uniforms=[0.5])
