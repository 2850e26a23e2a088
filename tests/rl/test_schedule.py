"""Which tasks and demonstrations an iteration uses."""

import pytest

from raybolt.rl.recipes import SFT, LightningRL
from raybolt.rl.schedule import demonstrations_by_iteration, num_rl_iterations, tasks_of_iteration


def picks(iteration: int, *, num_tasks: int = 5, tasks_per_iteration: int = 2, seed: int = 0) -> list[int]:
    return tasks_of_iteration(
        iteration, num_tasks=num_tasks, tasks_per_iteration=tasks_per_iteration, seed=seed
    )


def test_every_pass_over_the_tasks_uses_each_of_them_once() -> None:
    ten_tasks_in_two_passes = [task for iteration in range(5) for task in picks(iteration)]

    assert sorted(ten_tasks_in_two_passes[:5]) == [0, 1, 2, 3, 4]
    assert sorted(ten_tasks_in_two_passes[5:]) == [0, 1, 2, 3, 4]
    assert ten_tasks_in_two_passes[:5] != ten_tasks_in_two_passes[5:]


def test_an_iteration_is_the_same_however_training_came_to_it() -> None:
    assert picks(7) == picks(7)
    assert [picks(i, seed=1) for i in range(4)] != [picks(i, seed=2) for i in range(4)]


def test_more_tasks_an_iteration_than_there_are_starts_the_next_pass() -> None:
    assert sorted(picks(0, num_tasks=2, tasks_per_iteration=4)) == [0, 0, 1, 1]


@pytest.mark.parametrize(("num_tasks", "iterations"), [(48, 2), (49, 3), (1, 1)])
def test_iterations_default_to_one_pass_over_the_tasks(num_tasks: int, iterations: int) -> None:
    assert num_rl_iterations(LightningRL(tasks_per_iteration=24), num_tasks) == iterations


def test_every_epoch_of_fine_tuning_sees_every_group_once_in_another_order() -> None:
    groups = [f"demo/{i}" for i in range(25)]

    iterations = demonstrations_by_iteration(groups, SFT(epochs=2), seed=3)

    assert len(iterations) == 20
    first = [group for part in iterations[:10] for group in part]
    second = [group for part in iterations[10:] for group in part]
    assert sorted(first) == sorted(second) == sorted(groups)
    assert first != second


def test_fewer_groups_than_iterations_make_fewer_iterations() -> None:
    assert demonstrations_by_iteration(["only"], SFT(), seed=0) == [["only"]]
