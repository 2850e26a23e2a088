"""The resources that most agents are given, as objects: an LLM's endpoint and a prompt template.

Each is a dict, so that it is stored, compared and sent as the JSON object it is; ``resource_type`` in that
object says what it is made into when it is read.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from .errors import InvalidValue
from .types import Json, ResourcesUpdate


class _Resource(dict[str, Json]):
    """A JSON object whose values are also its attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"{type(self).__name__} has no {name!r}; it has {', '.join(self)}", name=name, obj=self
            ) from None

    def __setattr__(self, name: str, value: Json) -> None:
        self[name] = value


class LLM(_Resource):
    """An endpoint that speaks OpenAI's API, and how to ask it."""

    def __init__(
        self,
        *,
        endpoint: str,
        model: str,
        api_key: str | None = None,
        sampling_parameters: Mapping[str, Json] | None = None,
    ) -> None:
        super().__init__(
            resource_type="llm",
            endpoint=endpoint,
            model=model,
            api_key=api_key,
            sampling_parameters=dict(sampling_parameters or {}),
        )

    def get_base_url(self, *_: object) -> str:
        """The URL for an OpenAI client; ids of a rollout and an attempt make no difference to it."""
        return str(self.endpoint)


class PromptTemplate(_Resource):
    """A prompt with blanks."""

    def __init__(self, *, template: str, engine: Literal["f-string", "jinja", "poml"]) -> None:
        super().__init__(resource_type="prompt_template", template=template, engine=engine)

    def format(self, **values: object) -> str:
        """The prompt with its blanks filled in, by the rules of ``str.format``.

        Raises InvalidValue for a template of another engine, and for a blank that gets no value.
        """
        if self.engine != "f-string":
            raise InvalidValue(f"engine is {self.engine!r}; format() knows 'f-string' only: call the engine")
        try:
            return str(self.template).format(**values)
        except (KeyError, IndexError, ValueError) as error:
            raise InvalidValue(
                f"template {self.template!r} got values for {sorted(values)}: {error!r}; name each of its "
                "blanks, and write {{ and }} for braces"
            ) from None


_KINDS: dict[object, type[_Resource]] = {"llm": LLM, "prompt_template": PromptTemplate}


def typed(update: ResourcesUpdate) -> ResourcesUpdate:
    """Returns the resources with those that say their type as objects of it."""
    return replace(update, resources={name: _typed(value) for name, value in update.resources.items()})


def _typed(value: Json) -> Json:
    kind = _KINDS.get(str(value.get("resource_type"))) if isinstance(value, dict) else None
    if kind is None:
        return value
    resource = kind.__new__(kind)  # what was stored may have fewer fields, or more
    resource.update(value)
    return resource
