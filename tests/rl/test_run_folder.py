"""The folder of a run."""

from pathlib import Path

import pytest

from raybolt.rl.policies import PolicySpec
from raybolt.rl.recipes import SFT, LightningRL
from raybolt.rl.results import Progress
from raybolt.rl.run_folder import RunFolder
from raybolt.store.errors import InvalidValue


def begin(folder: RunFolder, *, resume: bool = False, seed: int = 0, **settings: object) -> None:
    folder.begin(recipe=LightningRL(**settings), seed=seed, num_tasks=4, resume=resume)


def progress(iteration: int) -> Progress:
    return Progress(
        phase="rl",
        iteration=iteration,
        iterations=9,
        reward_mean=0.5,
        loss=0.1,
        seconds={"total": 1.0},
        tokens={"sampled": 7},
    )


def test_a_folder_with_a_run_is_not_taken_for_another(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    begin(folder)

    with pytest.raises(InvalidValue, match=r"already holds a run.*resume=True"):
        begin(folder)


def test_resuming_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="no run to resume"):
        begin(RunFolder(tmp_path), resume=True)


def test_resuming_with_other_settings_names_the_one_that_differs(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    begin(folder, lr=1e-3)

    with pytest.raises(InvalidValue, match=r"has lr=0\.001, but this one lr=0\.01"):
        begin(folder, resume=True, lr=1e-2)
    with pytest.raises(InvalidValue, match="has seed=0, but this one seed=1"):
        begin(folder, resume=True, seed=1, lr=1e-3)


def test_resuming_may_go_on_for_longer(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    begin(folder, iterations=2, warmup=SFT())

    begin(folder, resume=True, iterations=4, warmup=SFT())


def test_resuming_with_policies_in_another_order_is_refused(tmp_path: Path) -> None:
    policies = {"writer": PolicySpec(roles=["writer"]), "rest": PolicySpec(roles=["*"])}
    folder = RunFolder(tmp_path)
    begin(folder, policies=policies)

    begin(folder, resume=True, policies=policies)
    with pytest.raises(InvalidValue, match="has policies="):
        begin(folder, resume=True, policies=dict(reversed(policies.items())))


def test_the_trained_models_of_a_run_stand_for_those_it_started_from(tmp_path: Path) -> None:
    policies = {
        "writer": PolicySpec(roles=["w*"], lr=0.1),
        "rest": PolicySpec(roles=["*"], model="smollm2-135m"),
    }
    for name, settings in (
        ("shared", {}),
        ("two", {"policies": policies}),
        ("one", {"policies": {"a": policies["rest"]}}),
    ):
        begin(RunFolder(tmp_path / name), **settings)

    def trained(name: str) -> LightningRL:
        return RunFolder(tmp_path / name).trained(LightningRL(temperature=0.5))

    assert trained("shared") == LightningRL(model=str(tmp_path / "shared/model"), temperature=0.5)
    assert trained("two").policies == {
        "writer": PolicySpec(roles=["w*"], model=str(tmp_path / "two/model/writer")),
        "rest": PolicySpec(roles=["*"], model=str(tmp_path / "two/model/rest")),
    }
    assert trained("one").policies == {"a": PolicySpec(roles=["*"], model=str(tmp_path / "one/model"))}
    with pytest.raises(InvalidValue, match=r"no run in .* whose model could be used"):
        trained("none")


def test_progress_past_the_checkpoint_is_taken_off_the_log(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    begin(folder)
    for iteration in (1, 2, 3):
        folder.append_progress(progress(iteration))

    assert folder.load_progress(2) == [progress(1), progress(2)]
    assert folder.load_progress(3) == [progress(1), progress(2)]
