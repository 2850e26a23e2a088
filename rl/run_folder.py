"""The folder of one training run: what is in it, whose it is, and what its log says."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from raybolt.rl.policies import PolicySpec
from raybolt.rl.recipes import Recipe, recipe_from_dict, recipe_to_dict
from raybolt.rl.results import EvalResult, Progress
from raybolt.store.errors import InvalidValue

_VERSIONED = ("raybolt", "ray", "torch", "transformers", "gymnasium")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of a run, all below `root`: the store's journal beside what training leaves."""

    root: Path

    @property
    def checkpoint(self) -> Path:
        return self.root / "checkpoint"

    @property
    def model(self) -> Path:
        return self.root / "model"

    def model_folders(self, policy_ids: Collection[str]) -> dict[str, Path]:
        """Where the trained model of each policy goes: into `model` itself if there is but one."""
        if len(policy_ids) == 1:
            return dict.fromkeys(policy_ids, self.model)
        return {policy_id: self.model / policy_id for policy_id in policy_ids}

    def trained(self, recipe: Recipe) -> Recipe:
        """`recipe` with the policies of the run in this folder, and their trained models.

        Raises:
            InvalidValue: the folder holds no run.
        """
        if not self.identity.exists():
            raise InvalidValue(f"There is no run in {self.root} whose model could be used; train one first.")
        policies = recipe_from_dict(json.loads(self.identity.read_text())["recipe"]).policies
        if policies is None:
            return replace(recipe, model=str(self.model), policies=None)
        folders = self.model_folders(policies)
        specs = {
            name: PolicySpec(roles=spec.roles, model=str(folders[name])) for name, spec in policies.items()
        }
        return replace(recipe, policies=specs)

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def tasks(self) -> Path:
        return self.root / "tasks.jsonl"

    @property
    def identity(self) -> Path:
        return self.root / "run.json"

    @property
    def progress(self) -> Path:
        return self.log / "progress.jsonl"

    def begin(self, *, recipe: Recipe, seed: int, num_tasks: int, resume: bool) -> None:
        """Claims the folder for a run, or checks that the run to be resumed is this one.

        Raises:
            InvalidValue: the folder holds another run, or, with `resume`, none or a different one.
        """
        wanted = {"recipe": recipe_to_dict(recipe), "seed": seed, "num_tasks": num_tasks}
        if resume:
            self._check_same(wanted)
            return
        if self.identity.exists():
            raise InvalidValue(
                f"The folder {self.root} already holds a run. Continue it with resume=True (--resume), or "
                "give another folder."
            )
        self.log.mkdir(parents=True, exist_ok=True)
        write_json(self.identity, {**wanted, "versions": versions()})

    def _check_same(self, wanted: Mapping[str, Any]) -> None:
        if not self.identity.exists():
            raise InvalidValue(f"There is no run to resume in {self.root}. Start one without resume.")
        found = json.loads(self.identity.read_text())
        # More iterations of the same run are no different run.
        ours, theirs = _without_length(json.loads(json.dumps(wanted))), _without_length(found)
        for name, value in ours.items():
            # As text, since the order of policies says which of them answers a role.
            if json.dumps(theirs.get(name)) != json.dumps(value):
                raise InvalidValue(
                    f"The run in {self.root} has {name}={theirs.get(name)!r}, but this one {name}={value!r}. "
                    "Resume with the settings it was started with, or give another folder."
                )

    @property
    def evaluations(self) -> Path:
        return self.log / "evaluations.json"

    def save_evaluations(self, evaluations: Mapping[str, EvalResult]) -> None:
        write_json(self.evaluations, {phase: asdict(result) for phase, result in evaluations.items()})

    def load_evaluations(self) -> dict[str, EvalResult]:
        if not self.evaluations.exists():
            return {}
        return {phase: EvalResult(**data) for phase, data in json.loads(self.evaluations.read_text()).items()}

    def append_progress(self, progress: Progress) -> None:
        with self.progress.open("a") as file:
            file.write(json.dumps(asdict(progress)) + "\n")

    def load_progress(self, num_done: int) -> list[Progress]:
        """The iterations up to `num_done`; later ones, whose weights were lost, are taken off the log."""
        if not self.progress.exists():
            return []
        lines = [json.loads(line) for line in self.progress.read_text().splitlines()]
        kept = [line for line in lines if line["iteration"] <= num_done]
        replace_text(self.progress, "".join(json.dumps(line) + "\n" for line in kept))
        return [Progress(**line) for line in kept]


def versions() -> dict[str, str]:
    """Versions of what the numbers of a run depend on."""
    return {name: version(name) for name in _VERSIONED}


def write_json(path: Path, data: Any) -> None:
    """Writes `data` so that a crash leaves either the old file or the new one."""
    replace_text(path, json.dumps(data, indent=2) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Writes `text` so that a crash leaves either the old file or the new one."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text)
    os.replace(fresh, path)


def _without_length(identity: Mapping[str, Any]) -> dict[str, Any]:
    recipe = {k: v for k, v in identity["recipe"].items() if k not in ("iterations", "checkpoint_every")}
    return {"seed": identity["seed"], "num_tasks": identity["num_tasks"], **recipe}
