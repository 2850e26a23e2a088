from pathlib import Path
from random import Random

import pytest

from raybolt.benchmarks.sql.conversation import SYSTEM_PROMPT
from raybolt.benchmarks.sql.pretrain import make_tokenizer
from raybolt.benchmarks.sql.words import TABLE_WORDS, WORDS

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "run_sql",
            "description": "Run a SQLite query and see its rows.",
            "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
        },
    }
]
CALL = {"name": "run_sql", "arguments": {"query": "SELECT name FROM club"}}
CHAT = [
    {"role": "system", "content": SYSTEM_PROMPT},
    {"role": "user", "content": "club(club_id, name)\nShow the name of every club."},
    {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": CALL}]},
    {"role": "tool", "content": "Tiger\nFalcon"},
]
RENDERED = """\
<|im_start|>system
Answer with one SQLite query.
Tool: run_sql(query)<|im_end|>
<|im_start|>user
club(club_id, name)
Show the name of every club.<|im_end|>
<|im_start|>assistant
<tool_call>{"name": "run_sql", "arguments": {"query": "SELECT name FROM club"}}</tool_call><|im_end|>
<|im_start|>tool
Tiger
Falcon<|im_end|>
<|im_start|>assistant
"""


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.mark.parametrize("around", ["{}", " {} ", "({},", "'{}'", "t.{}=", '"{}"', ".{}\n", "SELECT {} FROM"])
def test_every_word_of_the_world_is_one_token_wherever_it_stands(tokenizer, around):
    for word in WORDS:
        assert tokenizer.tokenize(around.format(word)).count(word) == 1, word


def test_a_key_is_its_tables_name_and_a_suffix(tokenizer):
    for table in TABLE_WORDS:
        assert tokenizer.tokenize(f"{table}_id") == [table, "_id"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "Ünïcode ☃ 数据库 \u202e \U0001f600",
        "\t tabs,\r\n  blank lines\n\n\n",
        'SELECT T1."Home Town" FROM people AS T1 WHERE T1.x >= 3.14 -- why?',
        '<|im_start|>user\nWhat\'s the average?<|im_end|><tool_call>{"name": "run_sql"}</tool_call>',
        "club_id_x my_id s_idle Clubs clubs playerclub ofthe",
        "\0\x7f",
    ],
)
def test_any_text_comes_back_as_it_was(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_random_bytes_of_text_come_back_as_they_were(tokenizer):
    rng = Random(0)
    for _ in range(200):
        text = "".join(chr(rng.choice((rng.randint(1, 127), rng.randint(160, 0x2FFF)))) for _ in range(60))
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_template_renders_a_chat_with_its_tools(tokenizer):
    text = tokenizer.apply_chat_template(CHAT, tools=TOOLS, tokenize=False, add_generation_prompt=True)
    assert text == RENDERED


def test_arguments_given_as_json_text_are_rendered_alike(tokenizer):
    call = {"name": "run_sql", "arguments": '{"query": "SELECT name FROM club"}'}
    chat = [*CHAT[:2], {"role": "assistant", "content": None, "tool_calls": [{"function": call}]}, CHAT[3]]
    text = tokenizer.apply_chat_template(chat, tools=TOOLS, tokenize=False, add_generation_prompt=True)
    assert text == RENDERED


def test_a_chat_without_tools_and_system_message_has_no_system_turn(tokenizer):
    chat = [{"role": "user", "content": "name"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "<|im_start|>user\nname<|im_end|>\n"


def test_a_call_takes_few_tokens(tokenizer):
    arguments = '{"query": "SELECT name FROM club"}'
    text = f'<tool_call>{{"name": "run_sql", "arguments": {arguments}}}</tool_call><|im_end|>'
    head = '{"name":Ġ"run_sql",Ġ"arguments":Ġ{"query":Ġ"'
    assert tokenizer.tokenize(text) == [
        *("<tool_call>", head, "SELECTĠ", "name", "ĠFROMĠ", "club", '"}}', "</tool_call>", "<|im_end|>")
    ]


def test_the_marks_of_a_call_survive_decoding_without_special_tokens(tokenizer):
    ids = tokenizer("<tool_call>{}</tool_call><|im_end|>")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<tool_call>{}</tool_call>"


def test_prompts_and_calls_of_the_benchmark_are_short(tokenizer, world):
    for task in world.train + world.held_out:
        chat = [CHAT[0], *task.input["messages"]]
        text = tokenizer.apply_chat_template(chat, tools=TOOLS, tokenize=False, add_generation_prompt=True)
        assert len(tokenizer(text)["input_ids"]) <= 150
        assert len(tokenizer(task.reference["sql"])["input_ids"]) <= 45


def test_a_saved_tokenizer_is_the_same(tokenizer, tmp_path: Path):
    from transformers import AutoTokenizer

    from raybolt.benchmarks.sql.tokenizer import save_tokenizer

    save_tokenizer(tokenizer, tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again(RENDERED)["input_ids"] == tokenizer(RENDERED)["input_ids"]
    assert again.chat_template == tokenizer.chat_template
    assert again.eos_token == "<|im_end|>"
