"""The Ray cluster that training runs on."""

from __future__ import annotations

import os

import cloudpickle
import ray
from ray.exceptions import RayTaskError

from raybolt.store.errors import InvalidValue


def ensure_ray() -> bool:
    """Connects to Ray unless the process already is; True if a new local Ray was started for it.

    `RAY_ADDRESS` names a running cluster (a submitted job has it set). Without it, Ray starts on this
    machine and ends with whoever called.
    """
    if ray.is_initialized():
        return False
    address = os.environ.get("RAY_ADDRESS")
    if address:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        return False
    # Torch's idle threads would otherwise spin, and where runners and learner share the cores with anything
    # else, an update then takes up to fifty times as long (seen on 2 cores). Ray's processes inherit this.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Actors ask for half a CPU each (see RunnerLayout); two logical CPUs hold the smallest layout even on
    # a machine with one core. "local" because without an address Ray would join any cluster it finds here.
    ray.init(
        address="local",
        num_cpus=max(2, os.cpu_count() or 1),
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    return True


def check_agent_loads(agent: object) -> None:
    """Raises `InvalidValue`, saying why, if a worker process cannot load the agent."""

    @ray.remote(num_cpus=0)
    def load(pickled: bytes) -> None:
        cloudpickle.loads(pickled)

    try:
        ray.get(load.remote(cloudpickle.dumps(agent)))
    except RayTaskError as error:
        raise InvalidValue(
            f"The agent cannot be loaded in a worker process: {error.cause!r}. Its module, and what that "
            "imports, must be importable there as it is here."
        ) from error
