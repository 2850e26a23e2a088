"""Fixtures shared by every room's tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_disk import mounted

TESTS = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what starts Ray, which the bare-install job leaves to the whole suite."""
    for item in items:
        if isinstance(item, pytest.Function) and "ray_session" in item.fixturenames:
            item.add_marker("ray")


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A local Ray without dashboard, started by the first test that needs it and shared by all the others.

    It has more logical CPUs than the machine, so that a test's actors never wait for one another's CPUs.
    """
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)  # workers import the tests' helpers
        ray.init(
            address="local",
            num_cpus=8,
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            namespace="raybolt-tests",
            object_store_memory=256 * 2**20,
        )
    yield
    ray.shutdown()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB, where the system lets one be mounted."""
    with mounted(tmp_path / "disk") as folder:
        yield folder
