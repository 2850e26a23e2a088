"""What different chat templates make of a conversation."""

import pytest

from raybolt.env.chat import ChatMessage, ChatRequest, ToolCall, ToolSpec
from raybolt.env.codec import ChatCodec
from raybolt.env.errors import TemplateError
from raybolt.env.memory import CodecMemory, joined
from raybolt.env.template import ChatTemplate

TOOL = ToolSpec("look", "looks up", {"type": "object", "properties": {"q": {"type": "string"}}})
ASK = ChatMessage("user", "one?")
USE = ChatMessage("assistant", None, (ToolCall("a", "look", '{"q": "x"}'),))
RESULT = ChatMessage("tool", "two")


def test_a_plain_chatml_template_renders_only_what_is_new(codec):
    assert codec.template.is_incremental
    assert codec.template.knows_tools
    assert codec.template.turn_end == "<|im_end|>\n"
    assert codec.stop_ids == (codec.end_id,)


def test_a_template_without_tools_gets_them_as_text(make_codec, templates):
    template = make_codec(templates["without tools"]).template
    assert not template.knows_tools
    text = template.render([ASK, USE, RESULT, RESULT], [TOOL], generate=True)
    assert text == (
        "<|im_start|>system\nYou can use the tools listed below. To use one, write\n"
        '<tool_call>{"name": "the tool", "arguments": {"its": "arguments"}}</tool_call>\n'
        "and end your message; the result comes in the next message.\n"
        "<tools>\n"
        '{"name": "look", "description": "looks up", "parameters": '
        '{"type": "object", "properties": {"q": {"type": "string"}}}}\n'
        "</tools><|im_end|>\n"
        "<|im_start|>user\none?<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>{"name": "look", "arguments": {"q": "x"}}</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\ntwo\n</tool_response>\n<tool_response>\ntwo\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_tools_join_a_system_message_that_is_there(make_codec, templates):
    template = make_codec(templates["without tools"]).template
    text = template.render([ChatMessage("system", "Be brief."), ASK], [TOOL], generate=False)
    assert text.startswith("<|im_start|>system\nBe brief.\n\nYou can use the tools")


def test_a_template_that_drops_thoughts_of_earlier_turns_is_found_out(make_codec, templates):
    codec = make_codec(templates["forgets thoughts"])
    assert not codec.template.is_incremental
    memory = CodecMemory()
    request = ChatRequest((ASK,), (TOOL,))
    thought = codec.encode_reply(request, ChatMessage("assistant", "<think>\nhm\n</think>\n\nyes"))
    completion = codec.decode(thought, request)
    prompt = codec.encode(request, memory)
    memory.remember(request, completion.message, joined(prompt, thought))
    # In a tool loop the thought stays, and its tokens are reused …
    kept = ChatRequest((ASK, completion.message, RESULT), (TOOL,))
    assert codec.encode(kept, memory)[: len(prompt) + len(thought)].tolist() == [*prompt, *thought]
    assert memory.drift is None
    # … the next user turn drops it: the prompt is what the template says, and this is reported.
    dropped = ChatRequest((ASK, completion.message, ASK), (TOOL,))
    assert "hm" not in codec.tokenizer.decode(codec.encode(dropped, memory))
    assert memory.drift == "the chat template renders earlier turns otherwise once new ones follow"


def test_a_template_whose_turns_end_with_a_space_and_a_token_works(make_codec, templates):
    codec = make_codec(templates["llama2"])
    assert codec.template.turn_end == " <|im_end|>"
    memory = CodecMemory()
    request = ChatRequest((ASK,))
    prompt = codec.encode(request, memory)
    reply = codec.encode_reply(request, ChatMessage("assistant", "yes"))
    memory.remember(request, codec.decode(reply, request).message, joined(prompt, reply))
    following = codec.encode(ChatRequest((ASK, ChatMessage("assistant", "yes"), ASK)), memory)
    assert codec.tokenizer.decode(following) == "[user] one? [/] yes <|im_end|>[user] one? [/]"
    assert memory.drift is None


def test_a_tokenizer_without_a_template_is_an_error_with_a_remedy(make_tokenizer):
    with pytest.raises(TemplateError, match=r"no chat template.*use a chat \(instruct\) model"):
        ChatCodec(make_tokenizer(None), max_context=100)


def test_what_a_template_refuses_is_an_error_that_names_the_roles(make_tokenizer):
    refusing = (
        "{% for m in messages if m.role != 'system' or raise_exception('no system') %}"
        "{{ m.role }}: {{ m.content }}\n{% endfor %}"
    )
    template = ChatTemplate(make_tokenizer(refusing))
    with pytest.raises(TemplateError, match=r"a conversation of system, user: .*no system"):
        template.render([ChatMessage("system", "x"), ASK], [], generate=True)


def test_a_template_is_rendered_as_transformers_renders_it(make_tokenizer, templates):
    for name, text in templates.items():
        tokenizer = make_tokenizer(text)
        template = ChatTemplate(tokenizer)
        slow = ChatTemplate(tokenizer)
        slow._compiled = None
        conversation = [ChatMessage("system", "s"), ASK, USE, RESULT, ChatMessage("assistant", "done")]
        rendered = template.render(conversation, [TOOL], generate=True)
        assert rendered == slow.render(conversation, [TOOL], generate=True), name
