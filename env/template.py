"""A tokenizer's chat template: rendering whole conversations, and only what is new in them.

What a template does is found out by trying it on small conversations, once per tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from raybolt.env.chat import ChatMessage, ToolCall, ToolSpec, message_to_dict, tool_to_dict
from raybolt.env.errors import TemplateError
from raybolt.env.tool_calls import canonical_arguments, tools_as_text, without_tool_turns

_MARK = "zqxv"  # a text that no template writes by itself
_TOOL = ToolSpec(_MARK, "looks things up", {"type": "object", "properties": {"q": {"type": "string"}}})
_CALL = ToolCall("call_0", _MARK, '{"q": "x"}')
_SYSTEM = ChatMessage("system", "Be brief.")
_ASK = ChatMessage("user", "one?")
_TEXT = ChatMessage("assistant", _MARK)
_THINK = ChatMessage("assistant", "<think>\nhm\n</think>\n\nyes")
_USE = ChatMessage("assistant", None, (_CALL,))
_SAY_AND_USE = ChatMessage("assistant", "let me see", (_CALL,))
_RESULT = ChatMessage("tool", "two", tool_call_id="call_0", name=_MARK)

_PROBES: tuple[tuple[ChatMessage, ...], ...] = (
    (_SYSTEM, _ASK, _TEXT, _ASK, _TEXT, _ASK),
    (_ASK, _USE, _RESULT, _TEXT, _ASK),
    (_SYSTEM, _ASK, _SAY_AND_USE, _RESULT, _RESULT, _USE, _RESULT),
    (_SYSTEM, _ASK, _THINK, _ASK, _TEXT, _ASK),
)


class ChatTemplate:
    """Renders conversations with a Hugging Face tokenizer's own chat template.

    A template that ignores tools or tool calls gets them as text: the tools in the system message, calls and
    results in the messages (see `env.tool_calls`).
    """

    def __init__(self, tokenizer: Any) -> None:
        """Tries the template out.

        Raises:
            TemplateError: there is none, or it cannot render even a question and an answer.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise TemplateError(
                "the tokenizer has no chat template, so it cannot render messages; use a chat "
                "(instruct) model or set tokenizer.chat_template"
            )
        self._tokenizer = tokenizer
        self._compiled = _compiled(tokenizer)
        self.knows_tools = True
        self.knows_tools = self._uses_tools()
        asked = self.render((_ASK,), (), generate=True)
        answered = self.render((_ASK, _TEXT), (), generate=False)
        if _MARK not in answered:
            raise TemplateError(f"the chat template does not render an assistant's answer: {answered!r}")
        self.turn_end: str = answered[answered.rindex(_MARK) + len(_MARK) :]
        """What follows the text of an assistant's turn, up to the next turn's first character."""
        self._after_text = answered
        self._after_call = self._render_or_none((_ASK, _USE), ())
        self._asked = asked
        self.is_incremental: bool = all(self._renders_apart(probe) for probe in _PROBES)
        """Whether a message is rendered alike whatever stands around it, and so can be rendered apart."""

    def render(self, messages: Sequence[ChatMessage], tools: Sequence[ToolSpec], *, generate: bool) -> str:
        """The conversation as text; with `generate`, up to where the assistant's answer begins.

        Raises:
            TemplateError: the template refuses the conversation.
        """
        if not self.knows_tools:
            messages = without_tool_turns(messages)
            if tools:
                messages = _with_system_text(messages, tools_as_text(tools))
                tools = ()
        from jinja2 import TemplateError as JinjaError

        conversation = [_template_message(message) for message in messages]
        schemas = [tool_to_dict(tool) for tool in tools] or None
        try:
            return self._render(conversation, schemas, generate)
        except (JinjaError, TypeError, ValueError, LookupError, AttributeError) as error:
            # What a template raises by itself, and what its expressions raise on a shape they do not expect.
            roles = ", ".join(message.role for message in messages)
            raise TemplateError(
                f"the chat template cannot render a conversation of {roles}: {type(error).__name__}: {error}"
            ) from error

    def suffix(
        self, earlier: Sequence[ChatMessage], new: Sequence[ChatMessage], tools: Sequence[ToolSpec]
    ) -> str | None:
        """What `new` adds to a conversation whose last message is an assistant's, generation prompt included.

        None if the template renders the earlier messages otherwise once there are new ones.
        """
        if self.is_incremental:
            after_call = bool(earlier[-1].tool_calls)
            return self._suffix_apart(after_call, new)
        before = self.render(earlier, tools, generate=False)
        after = self.render([*earlier, *new], tools, generate=True)
        if not before.endswith(self.turn_end) or not after.startswith(before):
            return None
        return after[len(before) :]

    def reply(self, messages: Sequence[ChatMessage], reply: ChatMessage, tools: Sequence[ToolSpec]) -> str:
        """The text of an assistant's turn up to, and without, `turn_end`.

        Raises:
            TemplateError: the turn cannot be told apart in the rendered conversation.
        """
        if self.is_incremental:
            before = self._asked
            after = self.render((_ASK, reply), (), generate=False)
        else:
            before = self.render(messages, tools, generate=True)
            after = self.render([*messages, reply], tools, generate=False)
        if not after.startswith(before) or not after.endswith(self.turn_end):
            raise TemplateError(
                "the chat template renders an answer otherwise than it asks for one, so the tokens of a "
                f"demonstration are not known; asked with {before[-80:]!r}, rendered {after[-160:]!r}"
            )
        return after[len(before) : len(after) - len(self.turn_end)]

    def _suffix_apart(self, after_call: bool, new: Sequence[ChatMessage]) -> str | None:
        before = self._after_call if after_call else self._after_text
        if before is None:
            return None
        after = self.render((_ASK, _USE if after_call else _TEXT, *new), (), generate=True)
        return after[len(before) :] if after.startswith(before) else None

    def _render(self, conversation: list[Any], tools: list[Any] | None, generate: bool) -> str:
        if self._compiled is not None:
            return self._compiled(messages=conversation, tools=tools, add_generation_prompt=generate)
        text: str = self._tokenizer.apply_chat_template(
            conversation, tools=tools, add_generation_prompt=generate, tokenize=False
        )
        return text

    def _uses_tools(self) -> bool:
        """Whether tools, calls and results all show up in what the template renders."""
        with_tools = self._render_or_none((_SYSTEM, _ASK), (_TOOL,))
        with_turns = self._render_or_none((_ASK, _USE, _RESULT), ())
        return (
            with_tools is not None
            and _MARK in with_tools
            and with_turns is not None
            and _MARK in with_turns
            and "two" in with_turns
        )

    def _renders_apart(self, messages: Sequence[ChatMessage]) -> bool:
        """Whether, after each assistant's turn, the rest rendered apart equals the rest rendered in place."""
        return all(
            self._continues(messages[:split], messages[split:], tools)
            for split in range(1, len(messages))
            if messages[split - 1].role == "assistant"
            for tools in ((), (_TOOL,))
        )

    def _continues(
        self, earlier: Sequence[ChatMessage], new: Sequence[ChatMessage], tools: Sequence[ToolSpec]
    ) -> bool:
        try:
            asked = self.render(earlier[:-1], tools, generate=True)
            before = self.render(earlier, tools, generate=False)
            after = self.render([*earlier, *new], tools, generate=True)
            apart = self._suffix_apart(bool(earlier[-1].tool_calls), new)
        except TemplateError:
            return False
        return before.startswith(asked) and before.endswith(self.turn_end) and after == f"{before}{apart}"

    def _render_or_none(self, messages: Sequence[ChatMessage], tools: Sequence[ToolSpec]) -> str | None:
        try:
            return self.render(messages, tools, generate=False)
        except TemplateError:
            return None


def _compiled(tokenizer: Any) -> Callable[..., str] | None:
    """The template's own `render`, in half the time of `apply_chat_template`, which copies all it is given.

    None if this Transformers has no such function, or it renders otherwise: `apply_chat_template` decides.
    """
    try:
        from transformers.utils.chat_template_utils import _compile_jinja_template as compile_template

        render = partial(
            compile_template(tokenizer.get_chat_template()).render, **tokenizer.special_tokens_map
        )
        conversation = [_template_message(message) for message in (_ASK, _SAY_AND_USE, _RESULT, _TEXT)]
        arguments = {"tools": [tool_to_dict(_TOOL)], "add_generation_prompt": True}
        direct = render(messages=conversation, **arguments)
        same = direct == tokenizer.apply_chat_template(conversation, tokenize=False, **arguments)
    except Exception:  # a private function may change at will, and a template may refuse the conversation
        return None
    return render if same else None


def _template_message(message: ChatMessage) -> dict[str, Any]:
    """The message as templates expect it: arguments as objects, and a text even where there is no content."""
    result = message_to_dict(message)
    result["content"] = message.content or ""
    for call in result.get("tool_calls", ()):
        call["function"]["arguments"] = canonical_arguments(call["function"]["arguments"])
    return result


def _with_system_text(messages: Sequence[ChatMessage], text: str) -> list[ChatMessage]:
    """The conversation with the text at the end of its system message, or as one."""
    if messages and messages[0].role == "system":
        content = f"{messages[0].content}\n\n{text}" if messages[0].content else text
        return [ChatMessage("system", content), *messages[1:]]
    return [ChatMessage("system", text), *messages]
