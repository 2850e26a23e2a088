"""Chat to tokens and back; earlier tokens are reused exactly."""

from dataclasses import replace

import numpy as np
import pytest

from raybolt.env.chat import ChatMessage, ChatRequest, ToolCall, ToolSpec
from raybolt.env.errors import ContextTooLong, TemplateError
from raybolt.env.memory import CodecMemory, joined

SQL = ToolSpec("run_sql", "Runs SQL", {"type": "object", "properties": {"query": {"type": "string"}}})
ASK = ChatRequest((ChatMessage("system", "You write SQL."), ChatMessage("user", "how many?")), (SQL,))
CALL_TEXT = '<tool_call>{"name": "run_sql", "arguments": {"query": "SELECT 1"}}</tool_call>'


QUERY = ToolCall("call_1", "run_sql", '{"query": "SELECT \\"a\\" FROM t", "limit": [1, null]}')


def odd_ids(codec, text):
    """Token ids of a text as no tokenizer would cut it: one byte a token, but for the special ones."""
    backend = codec.tokenizer.backend_tokenizer
    whole = [backend.token_to_id(token) for token in ("<tool_call>", "</tool_call>", "<|im_end|>")]
    ids = []
    for token in backend.encode(text, add_special_tokens=False).tokens:
        token_id = backend.token_to_id(token)
        ids += [token_id] if token_id in whole else [backend.token_to_id(char) for char in token]
    return np.array(ids, dtype=np.int32)


def text_of(codec, ids):
    return codec.tokenizer.decode(ids)


def answered(codec, memory, request, response_ids, call_id="call-0"):
    prompt = codec.encode(request, memory)
    completion = codec.decode(response_ids, request, call_id=call_id)
    memory.remember(request, completion.message, joined(prompt, completion.response_ids))
    return prompt, completion


def going_on(request, reply, *new):
    return replace(request, messages=(*request.messages, reply, *new))


def test_a_first_prompt_is_the_rendered_conversation(codec):
    prompt = codec.encode(ASK, CodecMemory())
    assert prompt.dtype == np.int32
    text = text_of(codec, prompt)
    assert text.startswith("<|im_start|>system\nYou write SQL.")
    assert '"name": "run_sql"' in text
    assert text.endswith("<|im_start|>user\nhow many?<|im_end|>\n<|im_start|>assistant\n")


def test_a_reply_is_read_as_content_and_tool_calls(codec):
    completion = codec.decode(odd_ids(codec, f"Let me see.{CALL_TEXT}<|im_end|>"), ASK, call_id="call-3")
    assert completion.message == ChatMessage(
        "assistant", "Let me see.", (ToolCall("call-3_0", "run_sql", '{"query": "SELECT 1"}'),)
    )
    assert (completion.finish_reason, completion.parse_error) == ("tool_calls", None)


def test_a_reply_without_its_end_was_cut_by_the_length(codec):
    completion = codec.decode(odd_ids(codec, "Let me"), ASK)
    assert (completion.message.content, completion.finish_reason) == ("Let me", "length")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('<tool_call>{"name": "run_sql", "argu</tool_call>', "no JSON in <tool_call>"),
        ('<tool_call>{"arguments": {}}</tool_call>', 'expected {"name": …, "arguments": …}'),
        ('<tool_call>{"name": "f", "arguments": "x"}</tool_call>', "the arguments of 'f' are no JSON object"),
        (f'{CALL_TEXT}<tool_call>{{"name": "run', "a <tool_call> is not closed"),
    ],
)
def test_a_malformed_tool_call_is_reported_and_the_text_kept(codec, text, error):
    completion = codec.decode(odd_ids(codec, f"{text}<|im_end|>"), ASK)
    assert completion.message == ChatMessage("assistant", text)
    assert error in completion.parse_error


def test_what_looks_like_a_call_is_text_where_there_are_no_tools(codec):
    completion = codec.decode(odd_ids(codec, f"{CALL_TEXT}<|im_end|>"), replace(ASK, tools=()))
    assert (completion.message.content, completion.message.tool_calls) == (CALL_TEXT, ())
    hidden = replace(ASK, tool_choice="none")
    assert codec.decode(odd_ids(codec, f"{CALL_TEXT}<|im_end|>"), hidden).message.content == CALL_TEXT


def test_a_reply_ends_with_its_tokens_at_the_first_stop_text(codec):
    ids = odd_ids(codec, "one\nObservation: two<|im_end|>")
    completion = codec.decode(ids, replace(ASK, stop=("Observation:", "never")))
    assert (completion.message.content, completion.finish_reason) == ("one", "stop")
    assert text_of(codec, completion.response_ids) == "one\nObservation:"


@pytest.mark.parametrize(
    "back",
    [
        ChatMessage("assistant", "ok", (ToolCall("call-0_0", "run_sql", '{"query": "SELECT 1"}'),)),
        ChatMessage("assistant", " ok\n", (ToolCall("toolu_9", "run_sql", '{"query":"SELECT 1"}'),)),
    ],
    ids=["as it was", "as a framework gives it back"],
)
def test_the_next_prompt_begins_with_the_very_tokens_of_the_earlier_one_and_its_reply(codec, back):
    memory = CodecMemory()
    sampled = odd_ids(codec, f"ok{CALL_TEXT}<|im_end|>")
    prompt, _ = answered(codec, memory, ASK, sampled)
    following = codec.encode(going_on(ASK, back, ChatMessage("tool", "[[7]]")), memory)
    begin = joined(prompt, sampled)
    np.testing.assert_array_equal(following[: len(begin)], begin)
    assert text_of(codec, following[len(begin) :]) == (
        "\n<|im_start|>tool\n[[7]]<|im_end|>\n<|im_start|>assistant\n"
    )
    assert memory.drift is None


def test_a_reply_cut_by_the_length_gets_its_end_of_turn_exactly_once(codec):
    memory = CodecMemory()
    sampled = odd_ids(codec, "half an ans")
    prompt, completion = answered(codec, memory, ASK, sampled)
    following = codec.encode(going_on(ASK, completion.message, ChatMessage("user", "go on")), memory)
    assert text_of(codec, following[len(prompt) :]) == (
        "half an ans<|im_end|>\n<|im_start|>user\ngo on<|im_end|>\n<|im_start|>assistant\n"
    )


def test_tokens_are_reused_over_many_turns(codec):
    memory = CodecMemory()
    request = ASK
    begin = np.zeros(0, dtype=np.int32)
    for turn in range(6):
        sampled = odd_ids(codec, f"answer {turn}<|im_end|>")
        prompt, completion = answered(codec, memory, request, sampled)
        np.testing.assert_array_equal(prompt[: len(begin)], begin)
        begin = joined(prompt, sampled)
        request = going_on(request, completion.message, ChatMessage("user", f"question {turn}"))
    assert memory.drift is None
    assert text_of(codec, begin) == codec.template.render(
        (*request.messages[:-1],), (SQL,), generate=False
    ).removesuffix("\n")


def test_two_conversations_of_a_run_are_kept_apart(codec):
    memory = CodecMemory()
    other = replace(ASK, messages=(ChatMessage("user", "other"),))
    first, one = answered(codec, memory, ASK, odd_ids(codec, "one<|im_end|>"))
    second, two = answered(codec, memory, other, odd_ids(codec, "two<|im_end|>"))
    again = ChatMessage("user", "again")
    first_again = codec.encode(going_on(ASK, one.message, again), memory)
    second_again = codec.encode(going_on(other, two.message, again), memory)
    np.testing.assert_array_equal(first_again[: len(first)], first)
    np.testing.assert_array_equal(second_again[: len(second)], second)
    assert memory.drift is None


def test_other_tools_begin_another_conversation_and_this_is_drift(codec):
    memory = CodecMemory()
    _, completion = answered(codec, memory, ASK, odd_ids(codec, "one<|im_end|>"))
    request = replace(going_on(ASK, completion.message, ChatMessage("user", "more")), tools=())
    codec.encode(request, memory)
    assert memory.drift == "1 sampled replies were tokenised again: what stands before them changed"


def test_a_changed_history_is_rendered_anew_and_reported(codec):
    memory = CodecMemory()
    _, completion = answered(codec, memory, ASK, odd_ids(codec, "one<|im_end|>"))
    messages = (ChatMessage("user", "summary"), completion.message, ChatMessage("user", "go"))
    shortened = replace(ASK, messages=messages)
    prompt = codec.encode(shortened, memory)
    assert "tokenised again" in memory.drift
    assert text_of(codec, prompt) == codec.template.render(shortened.messages, (SQL,), generate=True)


def test_examples_that_nobody_sampled_are_no_drift(codec):
    memory = CodecMemory()
    answered(codec, memory, ASK, odd_ids(codec, "one<|im_end|>"))
    shots = (ChatMessage("user", "2+2"), ChatMessage("assistant", "4"), ChatMessage("user", "3+3"))
    codec.encode(replace(ASK, messages=shots), memory)
    assert memory.drift is None


def test_a_prompt_without_room_for_an_answer_is_an_error_with_both_numbers(make_codec):
    codec = make_codec(max_context=30)
    with pytest.raises(ContextTooLong, match=r"the prompt has \d+ tokens, the model takes 30"):
        codec.encode(ASK, CodecMemory())


@pytest.mark.parametrize(
    "reply",
    [
        ChatMessage("assistant", "Seven."),
        ChatMessage("assistant", None, (QUERY,)),
        ChatMessage("assistant", "ok", (ToolCall("call_0", "f", "{}"), QUERY)),
    ],
)
@pytest.mark.parametrize("template", ["chatml", "without tools", "forgets thoughts"])
def test_a_demonstrated_reply_reads_back_as_itself(make_codec, templates, template, reply):
    codec = make_codec(templates[template])
    ids = codec.encode_reply(ASK, reply)
    assert ids[-1] == codec.end_id
    read = codec.decode(ids, ASK).message
    assert read.content == reply.content
    assert [call.name for call in read.tool_calls] == [call.name for call in reply.tool_calls]
    assert [call.arguments for call in read.tool_calls] == [call.arguments for call in reply.tool_calls]


def test_a_demonstration_that_would_be_read_otherwise_is_an_error(codec):
    with pytest.raises(TemplateError, match="would be read back as"):
        codec.encode_reply(ASK, ChatMessage("assistant", CALL_TEXT))
