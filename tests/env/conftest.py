"""A small real tokenizer (byte-level BPE with some merges) and the templates of several model families."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from raybolt.env.codec import ChatCodec

VOCAB_SIZE = 610
"""Of the models in these tests: larger than the tokenizer's, as real models' often are."""

CHATML = """\
{%- if tools or messages[0].role == 'system' -%}
<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}
{%- for tool in tools or [] %}
{{ tool | tojson }}
{%- endfor %}<|im_end|>
{% endif -%}
{%- for message in (messages[1:] if messages[0].role == 'system' else messages) -%}
<|im_start|>{{ message.role }}
{{ message.content }}
{%- for call in message.tool_calls or [] -%}
{{ '<tool_call>{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}{{ '}</tool_call>' }}
{%- endfor %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""

WITHOUT_TOOLS = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""

FORGETS_THOUGHTS = """\
{%- if tools -%}{{ tools | tojson }}{%- endif -%}
{%- set last = namespace(user=0) -%}
{%- for message in messages -%}
{%- if message.role == 'user' -%}{%- set last.user = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
{%- set text = message.content -%}
{%- if message.role == 'assistant' and loop.index0 < last.user and '</think>' in text -%}
{%- set text = text.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
<|im_start|>{{ message.role }}
{{ text }}
{%- for call in message.tool_calls or [] -%}
{{ '<tool_call>{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}{{ '}</tool_call>' }}
{%- endfor %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""

LLAMA2 = """\
{%- for message in messages -%}
{%- if message.role == 'assistant' %} {{ message.content }} <|im_end|>
{%- else -%}[{{ message.role }}] {{ message.content }} [/]
{%- endif -%}
{%- endfor -%}
"""


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[[str | None], Any]:
    """A factory of tokenizers of about 300 tokens with the given chat template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(
        ['SELECT name FROM city; {"query": "hello", "arguments"} user assistant tool'] * 9, trainer
    )
    core.add_tokens([AddedToken("<tool_call>"), AddedToken("</tool_call>")])

    def make(chat_template: str | None) -> Any:
        return PreTrainedTokenizerFast(
            tokenizer_object=core,
            eos_token="<|im_end|>",
            pad_token="<|endoftext|>",
            chat_template=chat_template,
            clean_up_tokenization_spaces=False,
        )

    return make


@pytest.fixture(scope="session")
def make_codec(make_tokenizer: Callable[[str | None], Any]) -> Callable[..., ChatCodec]:
    def make(chat_template: str = CHATML, max_context: int = 2000) -> ChatCodec:
        return ChatCodec(make_tokenizer(chat_template), max_context=max_context, vocab_size=VOCAB_SIZE)

    return make


@pytest.fixture(scope="session")
def codec(make_codec: Callable[..., ChatCodec]) -> ChatCodec:
    return make_codec()


@pytest.fixture(scope="session")
def templates() -> dict[str, str]:
    return {
        "chatml": CHATML,
        "without tools": WITHOUT_TOOLS,
        "forgets thoughts": FORGETS_THOUGHTS,
        "llama2": LLAMA2,
    }


@pytest.fixture
def openai_client() -> None:
    """Skips the test where its agent's client is not installed."""
    pytest.importorskip("openai", reason="the test's agent uses the openai client")
