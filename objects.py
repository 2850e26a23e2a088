"""Names such as `package.module:build_agent` on the command line, turned into the objects they name."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from raybolt.settings import near
from raybolt.store.errors import InvalidValue


def load_object(spec: str, *, option: str) -> Any:
    """The object that `spec` (`package.module:name`) names; modules of the current folder count.

    `option` is what the user would change, for messages. Raises `InvalidValue` when the spec is malformed,
    the module cannot be imported, or it has no such name.
    """
    module_name, colon, name = spec.partition(":")
    if not (module_name and colon and name):
        raise InvalidValue(f"{option} is {spec!r}; write package.module:name, such as my_agent:build_agent.")
    module = _import(module_name, option=option, spec=spec)
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            public = [known for known in dir(value) if not known.startswith("_")]
            raise InvalidValue(
                f"{option} is {spec!r}, but {module_name} has no {part!r}{near(part, public)}."
            )
        value = getattr(value, part)
    return value


def _import(module_name: str, *, option: str, spec: str) -> ModuleType:
    # A console script has its own folder on sys.path, not the user's. For its workers, Ray adds this one.
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            modules = [path.stem for path in Path(here).glob("*.py")]
            raise InvalidValue(
                f"{option} is {spec!r}, but there is no module {error.name!r}"
                f"{near(error.name, modules)}; it is looked up in {here} and among the installed packages."
            ) from error
        raise InvalidValue(f"{option} is {spec!r}, and importing {module_name} failed: {error}.") from error
    except Exception as error:  # the module is the user's code: whatever it raises is theirs to know
        raise InvalidValue(
            f"{option} is {spec!r}, and importing {module_name} failed: {type(error).__name__}: {error}"
        ) from error
