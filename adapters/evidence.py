"""What a function's signature and names say about the framework it is written in, without running it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import CodeType
from typing import Any

_LLM_NAMES = frozenset({"llm", "model", "chat_model", "language_model", "lm", "policy"})
_LLM_TYPES = {  # the type's name, as an annotation gives it -> its library
    "BaseChatModel": "langchain_core",
    "BaseLanguageModel": "langchain_core",
    "LanguageModelLike": "langchain_core",
    "Runnable": "langchain_core",
    "ChatCompletionClient": "autogen_core",
    "BaseLLM": "crewai",
    "LLM": "crewai",
    "Model": "agents",
    "ChatModelBase": "agentscope",
}


def required_parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters that a caller must fill; none where Python cannot tell (some built-ins)."""
    return [parameter for parameter in _parameters(function) if parameter.default is parameter.empty]


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [parameter for parameter in parameters if parameter.kind not in variadic]


def takes_llm(function: Callable[..., Any]) -> bool:
    """Whether it looks like a factory `build(llm)`: its first parameter is named or typed as an LLM."""
    if not callable(function):
        return False
    first = next(iter(_parameters(function)), None)
    if first is None or len(required_parameters(function)) > 1:
        return False
    return first.name in _LLM_NAMES or _type_name(first.annotation) in _LLM_TYPES


def is_factory_like(function: Any) -> bool:
    """Whether it can be called as a factory: with an LLM, or with nothing."""
    return callable(function) and (takes_llm(function) or not required_parameters(function))


def _type_name(annotation: Any) -> str:
    """The bare name of an annotation, evaluated or still a string; "" if it has none."""
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return name.partition("[")[0].rpartition(".")[2]


def library_roots(function: Callable[..., Any]) -> set[str]:
    """Top-level packages behind the names that `function` uses: its imports, globals and LLM annotations."""
    annotations = (_type_name(parameter.annotation) for parameter in _parameters(function))
    roots = {_LLM_TYPES[name] for name in annotations if name in _LLM_TYPES}
    code, namespace = _code_and_globals(function)
    roots |= {_root(_module_of(value)) for value in _enclosed(function)}
    for name in _names(code) if code is not None else ():
        roots.add(_root(name))  # `import openai` inside the function
        if name in namespace:
            roots.add(_root(_module_of(namespace[name])))
    return roots


def _enclosed(function: Any) -> Iterator[Any]:
    """What a function has from the functions around it."""
    for cell in getattr(function, "__closure__", None) or ():
        with suppress(ValueError):  # a name that is bound only later
            yield cell.cell_contents


def module_roots(function: Callable[..., Any]) -> set[str]:
    """Top-level packages that the module defining `function` uses: weaker evidence, for want of better."""
    return {_root(_module_of(value)) for value in _code_and_globals(function)[1].values()}


def _module_of(value: Any) -> str:
    if inspect.ismodule(value):
        return value.__name__
    return getattr(value, "__module__", None) or type(value).__module__


def _code_and_globals(function: Any) -> tuple[CodeType | None, dict[str, Any]]:
    while hasattr(function, "func") or hasattr(function, "__wrapped__"):  # partials and decorators
        function = function.func if hasattr(function, "func") else function.__wrapped__
    if inspect.isclass(function):
        function = function.__init__
    elif not inspect.isroutine(function):
        function = type(function).__call__
    function = getattr(function, "__func__", function)
    return getattr(function, "__code__", None), getattr(function, "__globals__", {})


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _root(module: str) -> str:
    return module.partition(".")[0]
