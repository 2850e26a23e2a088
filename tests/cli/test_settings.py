from __future__ import annotations

from pathlib import Path

import pytest

from raybolt.rl.policies import PolicySpec
from raybolt.rl.recipes import SFT, LightningRL
from raybolt.settings import build_recipe, load_settings, read_recipe
from raybolt.store.errors import InvalidValue


@pytest.fixture
def config(tmp_path):
    """Writes a settings file and returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "settings.yaml"
        path.write_text(text)
        return path

    return write


RUN = "agent: a:b\ntasks: t\n"
MINIMAL = {"agent": "my_agent:build", "tasks": Path("train.jsonl")}


def test_options_alone_give_settings_with_the_documented_defaults():
    settings = load_settings(None, MINIMAL, {})
    assert settings.agent == "my_agent:build"
    assert settings.tasks == Path("train.jsonl")
    assert (settings.seed, settings.concurrency, settings.max_calls, settings.max_seconds) == (
        0,
        16,
        16,
        120.0,
    )
    assert settings.algorithm == LightningRL(model="tiny")


def test_a_file_gives_everything_an_option_gives(config):
    path = config(
        """
        agent: my_agent:build
        tasks: train.jsonl
        val: val.jsonl
        model: smollm2-135m
        max_seconds: 30
        algorithm:
          kind: lightningrl
          lr: 3e-4
          iterations: 5
          warmup: {epochs: 2}
        """
    )
    settings = load_settings(path, {}, {})
    assert settings.val == Path("val.jsonl")
    assert settings.max_seconds == 30.0
    assert settings.algorithm == LightningRL(
        model="smollm2-135m", lr=0.0003, iterations=5, warmup=SFT(model="smollm2-135m", epochs=2)
    )


def test_the_command_line_wins_over_the_file(config):
    path = config("agent: a:b\ntasks: t.jsonl\nseed: 1\nalgorithm: {lr: 0.1, clip_low: 0.3}\n")
    settings = load_settings(path, {"seed": 7, "reward": None}, {"lr": 0.5, "kind": None})
    assert settings.seed == 7
    assert settings.algorithm == LightningRL(lr=0.5, clip_low=0.3)


def test_another_algorithm_on_the_command_line_drops_the_settings_of_the_former(config):
    path = config("agent: a:b\ntasks: t.jsonl\nalgorithm: {clip_low: 0.3}\n")
    assert load_settings(path, {}, {"kind": "sft"}).algorithm == SFT()


def test_an_algorithm_may_be_just_a_name(config):
    assert load_settings(config("agent: a:b\ntasks: t\nalgorithm: sft\n"), {}, {}).algorithm == SFT()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("agnet: a:b", r"unknown key 'agnet' in .*yaml \(did you mean 'agent'\?\); known keys: agent,"),
        (RUN + "algorithm: {clip_hi: 1}", r"'clip_hi' in algorithm lightningrl in .* \(.* 'clip_high'\?"),
        (RUN + "algorithm: {kind: sftt}", r"algorithm 'sftt' in .* is unknown \(.* 'sft'\?\)"),
        (RUN + "algorithm: {warmup: {lrr: 1}}", r"'lrr' in algorithm sft in warmup of .* \(.* 'lr'"),
        (RUN + "algorithm: {warmup: 3}", r"warmup in .* is 3; expected keys with values"),
        (RUN + "algorithm: {model: tiny}", r"model in .* stands under 'algorithm:'"),
        (RUN + "seed: many", r"seed in .* is 'many'; expected int"),
        (RUN + "seed: true", r"seed in .* is True; expected int"),
        (RUN + "concurrency: 1.5", r"concurrency in .* is 1.5; expected int"),
        (RUN + "algorithm: {lr: quick}", r"lr in .* is 'quick'; expected float"),
        (RUN + "algorithm: {lr: -1}", r"LightningRL.lr is -1.0; give a number that is 0 or more"),
        (RUN + "algorithm: {policies: writer}", r"policies in .* is 'writer'; expected keys with values"),
        (RUN + "algorithm: {policies: {w: {role: [a]}}}", r"'role' in policy w in .* \(.* 'roles'\?\)"),
        (RUN + "algorithm: {policies: {w: {lr: 1}}}", r"roles is missing for policy w in .*: give those it"),
        (RUN + "algorithm: {policies: {w: {roles: a}}}", r"PolicySpec.roles is 'a'; give a list"),
        (RUN + "algorithm: {policies: {w: {roles: [a], lr: x}}}", r"lr in policy w in .* is 'x'; expected"),
        ("tasks: t", r"agent is missing: give --agent, or 'agent:' in a --config file"),
        ("agent: a:b", r"tasks is missing: give --tasks"),
        ("- agent", r"the file in .*settings.yaml is \['agent'\]; expected keys with values"),
        ("agent: [", r"config file .*settings.yaml is not YAML"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_file_is_named(config, text, message):
    with pytest.raises(InvalidValue, match=message):
        load_settings(config(text), {}, {})


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InvalidValue, match=r"config file .*none.yaml cannot be read: No such file"):
        load_settings(tmp_path / "none.yaml", {}, {})


def test_policies_are_written_below_the_algorithm(config):
    path = config(
        """
        agent: a:b
        tasks: t
        model: smollm2-135m
        algorithm:
          policies:
            writer: {roles: ["writer*"]}
            critic: {roles: [critic, judge], model: tiny, lr: 1e-4}
        """
    )
    assert load_settings(path, {}, {}).algorithm == LightningRL(
        model="smollm2-135m",
        policies={
            "writer": PolicySpec(roles=("writer*",)),
            "critic": PolicySpec(roles=("critic", "judge"), model="tiny", lr=0.0001),
        },
    )


def test_a_recipe_of_numbers_written_as_text():
    assert build_recipe({"lr": "1e-3", "iterations": "4"}, model=None) == LightningRL(lr=0.001, iterations=4)


def test_a_benchmark_reads_only_the_algorithm_of_a_file(config):
    recipe = read_recipe(config("algorithm: {kind: sft, epochs: 3}"), kind="sft", model="tiny")
    assert recipe == SFT(epochs=3)
    with pytest.raises(InvalidValue, match="unknown key 'agent'"):
        read_recipe(config("agent: a:b"), kind="sft", model="tiny")
