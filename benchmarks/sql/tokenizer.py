"""The tiny model's tokenizer: a byte-level BPE in which every word of the world is one token, wherever it
stands.

A plain BPE has one token for ` city`, another for `city` and cuts `(city` in two; copying a name from a
schema into SQL then means translating between tokens, which a model of a million parameters learns slowly if
at all. Here a regular expression cuts text so that names stand alone; spaces go with SQL keywords (` FROM `),
with punctuation (`, `) and with the questions' small words (`of `). Each piece that generated text is cut
into is one token. Any other text falls back to bytes: encoding and decoding lose nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from raybolt.benchmarks.sql.words import WORDS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD: Final = "<|endoftext|>"
TURN_START: Final = "<|im_start|>"
TURN_END: Final = "<|im_end|>"
_SPECIAL: Final = (PAD, TURN_START, TURN_END)
CALL_MARKS: Final = ("<tool_call>", "</tool_call>")
CALL_HEAD: Final = '{"name": "run_sql", "arguments": {"query": "'

CHAT_TEMPLATE: Final = """\
{%- macro call_text(call) -%}
{%- set call = call.function if call.function is defined else call -%}
{{- '<tool_call>{"name": ' + call.name | tojson + ', "arguments": ' -}}
{{- call.arguments if call.arguments is string else call.arguments | tojson -}}
{{- '}</tool_call>' -}}
{%- endmacro -%}
{%- if tools or messages[0].role == 'system' -%}
{{- '<|im_start|>system\\n' -}}
{%- if messages[0].role == 'system' -%}{{- messages[0].content -}}{%- endif -%}
{%- for tool in tools or [] -%}
{%- set tool = tool.function if tool.function is defined else tool -%}
{{- '\\nTool: ' + tool.name + '(' + (tool.parameters.properties | default({})).keys() | join(', ') + ')' -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if not (loop.first and message.role == 'system') -%}
{{- '<|im_start|>' + message.role + '\\n' + (message.content or '') -}}
{%- for call in message.tool_calls or [] -%}{{- call_text(call) -}}{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
"""ChatML. An assistant's turn is its text, then its tool calls, exactly as the model has to emit them."""


def build_tokenizer(texts: Iterable[str], *, max_length: int = 1024) -> PreTrainedTokenizerFast:
    """A tokenizer whose vocabulary holds the bytes, the world's words, and every piece `texts` are cut into.

    `max_length` is the context of the model it is for, in tokens.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    texts = list(texts)
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_pattern(_small_words(texts))), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    pieces = {piece for text in texts for piece, _ in split.pre_tokenize_str(text)}
    pieces |= {piece for word in WORDS for piece, _ in split.pre_tokenize_str(word)}
    pieces |= {f"{number:02}" for number in range(100)}
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [*letters, *sorted(pieces.difference(letters))]
    # `ignore_merges` looks a piece up whole before merging it from bytes, so that no merge rules are needed.
    model = models.BPE(
        {token: place for place, token in enumerate(vocabulary)}, merges=[], ignore_merges=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in _SPECIAL])
    # Not special: decoding with `skip_special_tokens` must keep the marks a tool call is recognised by.
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in CALL_MARKS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=TURN_END,
        chat_template=CHAT_TEMPLATE,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write `tokenizer.json`, its configuration and the chat template to `folder`."""
    tokenizer.save_pretrained(folder)


def _small_words(texts: list[str]) -> list[str]:
    """The words of `texts` that are not the world's, SQL's or an identifier's, longest first."""
    found = {
        word for text in texts for word in re.findall(r"(?<![A-Za-z_'])[A-Za-z]?[a-z]+(?![A-Za-z_])", text)
    }
    return sorted(found.difference(WORDS), key=lambda word: (-len(word), word))


def _pattern(small_words: list[str]) -> str:
    """The regular expression whose successive matches are the pieces of a text."""
    return "|".join(
        (
            re.escape(CALL_HEAD),
            r" ?[A-Z]{2,}(?: [A-Z]{2,})*(?![a-z_]) ?",  # SQL keywords, neighbours together
            rf"(?:{'|'.join(small_words)})(?![A-Za-z_]) ?",
            r"_id(?![A-Za-z_])",  # so that a key is its table's name and this
            r"[A-Za-z]+(?:_(?!id(?![A-Za-z_]))[A-Za-z]+)*",
            r"\d{1,2}",
            r'"\}\}|"',  # the end of a call stands alone, whatever the SQL ends with
            r' ?[^\w\s"]+(?: [^\w\s"]+)*(?: (?![A-Z]{2}))?',
            r"\s",
        )
    )
