"""The settings of a training or evaluation run: from a YAML file, overridden by command-line options.

A settings file has the keys of `RunSettings`, which are also the options' names (`max_calls` for
`--max-calls`), and under `algorithm:` those of the recipe. Every key is checked, and the message for an
unknown one names the nearest that exists.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from raybolt.rl.policies import PolicySpec
from raybolt.rl.recipes import SFT, LightningRL, Recipe
from raybolt.store.errors import InvalidValue

RECIPES: dict[str, type[LightningRL] | type[SFT]] = {LightningRL.kind: LightningRL, SFT.kind: SFT}


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """One run, as the user asked for it.

    Attributes:
        agent: `package.module:name` of what `raybolt.wrap` takes, or a table for `raybolt.command`: the
            `command` as a list, and if need be its `env` and `cwd`.
        tasks: JSON Lines file of training tasks.
        reward: `package.module:name` of the reward function; None if the agent rewards itself.
        val: JSON Lines file of the tasks to score on.
        teacher: `package.module:name` of who answers the LLM calls in demonstrations (for SFT).
        model: hub id, local folder, `.gguf` file, "tiny" or "smollm2-135m".
        out: folder of the run; None where the command can do without.
        resume: continue the run that `out` holds.
        seed: of everything random.
        num_runners: processes that run agents; None lets the machine decide.
        concurrency: agent runs at once in each of them.
        max_calls: LLM calls that one run may make.
        max_seconds: seconds that one run may take.
        algorithm: how to learn.
    """

    agent: str | dict
    tasks: Path
    reward: str | None = None
    val: Path | None = None
    teacher: str | None = None
    model: str = "tiny"
    out: Path | None = None
    resume: bool = False
    seed: int = 0
    num_runners: int | None = None
    concurrency: int = 16
    max_calls: int = 16
    max_seconds: float = 120.0
    algorithm: Recipe = field(default_factory=LightningRL)


def load_settings(config: Path | None, options: dict[str, Any], recipe: dict[str, Any]) -> RunSettings:
    """The settings in `config` (YAML), overridden by what was given on the command line.

    `options` and `recipe` hold the command line's run and algorithm options; None means not given, as does a
    `kind` of None in `recipe`. Raises `InvalidValue` for an unknown key, a value of the wrong type or a
    missing required key.
    """
    given = _read_yaml(config) if config else {}
    algorithm = _algorithm_table(given.pop("algorithm", None))
    where = str(config) if config else "the options"
    known = {f.name for f in dataclasses.fields(RunSettings)} - {"algorithm"}
    check_keys(given, known | {"algorithm"}, where=where)

    given |= _present(options)
    algorithm = _override_algorithm(algorithm, _present(recipe))
    for name in ("agent", "tasks"):
        if name not in given:
            raise InvalidValue(f"{name} is missing: give --{name}, or '{name}:' in a --config file.")
    values = coerce_fields(RunSettings, given, where=where)
    return RunSettings(**values, algorithm=build_recipe(algorithm, model=values.get("model"), where=where))


def read_recipe(config: Path | None, *, kind: str, model: str) -> Recipe:
    """The recipe of `kind` for `model`, with the settings under `algorithm:`, the only key of `config`."""
    given = _read_yaml(config) if config else {}
    check_keys(given, {"algorithm"}, where=str(config))
    table = _override_algorithm(_algorithm_table(given.get("algorithm")), {"kind": kind})
    return build_recipe(table, model=model, where=str(config))


def build_recipe(table: dict[str, Any], *, model: str | None, where: str = "algorithm") -> Recipe:
    """The recipe that a table such as `{"kind": "sft", "lr": 1e-3}` describes.

    Without `kind` it is "lightningrl". Numbers may be written as text (YAML reads `3e-4` as text). Raises
    `InvalidValue` as `load_settings` does.
    """
    values = dict(table)
    kind = values.pop("kind", LightningRL.kind)
    if kind not in RECIPES:
        raise InvalidValue(
            f"algorithm {kind!r} in {where} is unknown{near(str(kind), RECIPES)}; "
            f"there are: {', '.join(RECIPES)}."
        )
    cls = RECIPES[kind]
    if "model" in values:
        raise InvalidValue(
            f"model in {where} stands under 'algorithm:'; write it beside 'agent:', at the top."
        )
    check_keys(
        values, {f.name for f in dataclasses.fields(cls)} - {"model"}, where=f"algorithm {kind} in {where}"
    )
    warmup, policies = values.pop("warmup", None), values.pop("policies", None)
    values = coerce_fields(cls, values, where=where)
    if policies is not None:
        values["policies"] = _build_policies(_table(policies, "policies", where), where)
    if warmup is not None:
        recipe = build_recipe(
            {**_table(warmup, "warmup", where), "kind": SFT.kind}, model=model, where=f"warmup of {where}"
        )
        values["warmup"] = recipe
    return cls(**values) if model is None else cls(model=model, **values)


def _build_policies(tables: dict[str, Any], where: str) -> dict[str, PolicySpec]:
    """What `policies:` describes: under each policy's id the fields of a `PolicySpec`."""
    known = {f.name for f in dataclasses.fields(PolicySpec)}
    policies = {}
    for policy_id, table in tables.items():
        place = f"policy {policy_id} in {where}"
        values = _table(table, f"policy {policy_id}", where)
        check_keys(values, known, where=place)
        if "roles" not in values:
            raise InvalidValue(f"roles is missing for {place}: give those it answers, such as [writer*].")
        roles = values.pop("roles")
        policies[policy_id] = PolicySpec(roles=roles, **coerce_fields(PolicySpec, values, where=place))
    return policies


def check_keys(given: dict[str, Any], known: typing.Collection[str], *, where: str) -> None:
    """Raise `InvalidValue` naming the first key that is unknown and the known one nearest to it."""
    for key in given:
        if key not in known:
            raise InvalidValue(
                f"unknown key {key!r} in {where}{near(str(key), known)}; "
                f"known keys: {', '.join(sorted(known))}."
            )


def near(word: str, known: typing.Iterable[str]) -> str:
    """` (did you mean 'lr'?)` for a mistyped word, or nothing when no known word is near."""
    match = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {match[0]!r}?)" if match else ""


def coerce_fields(cls: type, values: dict[str, Any], *, where: str) -> dict[str, Any]:
    """`values` in the types that dataclass `cls` declares. Raises `InvalidValue` for one that cannot be."""
    hints = typing.get_type_hints(cls)
    return {name: _coerce(value, hints[name], name=name, where=where) for name, value in values.items()}


def _coerce(value: Any, hint: Any, *, name: str, where: str) -> Any:
    wanted = _plain_types(hint)
    if value is None and type(None) in wanted:
        return None
    if type(value) in wanted:
        return value
    if Path in wanted and isinstance(value, str | Path):
        return Path(value)
    for kind in (int, float):
        # bool is an int to Python, and a float would silently lose its fraction as an int.
        if kind in wanted and isinstance(value, str | int) and not isinstance(value, bool):
            try:
                return kind(value)
            except ValueError:
                continue
    names = " or ".join(t.__name__ for t in wanted if t is not type(None))
    raise InvalidValue(f"{name} in {where} is {value!r}; expected {names}.")


def _plain_types(hint: Any) -> tuple[type, ...]:
    is_union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    return tuple(typing.get_args(hint)) if is_union else (hint,)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InvalidValue(f"config file {path} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise InvalidValue(f"config file {path} is not YAML: {' '.join(str(error).split())}") from error
    return _table(data or {}, "the file", str(path))


def _table(data: Any, name: str, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise InvalidValue(f"{name} in {where} is {data!r}; expected keys with values, such as 'lr: 0.001'.")
    return dict(data)


def _algorithm_table(value: Any) -> dict[str, Any]:
    """`algorithm: sft` is short for `algorithm: {kind: sft}`."""
    if value is None:
        return {}
    return {"kind": value} if isinstance(value, str) else _table(value, "algorithm", "the config file")


def _override_algorithm(table: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """The file's recipe with the command line's values; another kind on the command line drops the former."""
    kind = options.get("kind")
    if kind is not None and kind != table.get("kind", LightningRL.kind):
        table = {}
    return {**table, **options}


def _present(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
