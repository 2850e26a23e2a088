"""Makes the shipped tiny model: `raybolt tiny make`, or this file as a module (`python -m …`, see `--help`).

A Llama of a million parameters reads endless generated documents: a random schema, then questions with their
SQL in plain text, laid out in many ways and littered with stray marks, as text from the web is. It learns to
answer questions about a schema it has never seen. No document shows a chat, the call of a tool, or a table of
the held-out databases, so that as an agent the model can do nothing yet.

The loop is plain torch, since these are the weights that all training through raybolt starts from. The loss
is taken on the SQL only: the rest of a document is random words, which teach nothing. Matrices are stepped by
Muon (torch.optim.Muon), with which copying names was learned after a million tokens, everything else by
AdamW.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from raybolt.benchmarks.sql.conversation import small_talk
from raybolt.benchmarks.sql.questions import ask
from raybolt.benchmarks.sql.schema import Schema
from raybolt.benchmarks.sql.tokenizer import (
    CALL_MARKS,
    PAD,
    TURN_END,
    TURN_START,
    build_tokenizer,
    save_tokenizer,
)
from raybolt.benchmarks.sql.world import random_schema
from raybolt.env.models import TINY_FOLDER

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

QUESTIONS_PER_DOCUMENT: Final = 3
DOCUMENTS_PER_STEP: Final = 32
NUM_STEPS: Final = 1500
MAX_CONTEXT: Final = 1024
IGNORED: Final = -100


@dataclass(frozen=True)
class Document:
    """A text in pieces; `answers` are the places of the pieces that are SQL."""

    pieces: tuple[str, ...]
    answers: tuple[int, ...]

    @property
    def text(self) -> str:
        """The whole document."""
        return "".join(self.pieces)


def random_document(rng: Random) -> Document:
    """A document about a random schema."""
    return document(rng, random_schema(rng, "random"))


# What stands before a question, between it and its SQL, and after: the habits of many authors.
_LAYOUTS: Final = (
    ("", "\n", "\n"),
    ("Q: ", "\nA: ", "\n"),
    ("-- ", "\n", ";\n"),
    ("* ", " -> ", "\n"),
    ("# ", "\n\n", "\n\n"),
    ("> ", "\n```\n", "\n```\n"),
    ("", ': "', '"\n'),
    ('["', '", "', '"]\n'),
    ("<p>", "</p><pre>", "</pre>\n"),
    ("/* ", " */ ", "\n"),
    ('{"', '": "', '"}\n'),
    ("(", ") = (", ")\n"),
)


# Marks and the like, in any order: no document shows a chat or the call of a tool.
_LITTER: Final = (
    PAD,
    TURN_START,
    TURN_END,
    *CALL_MARKS,
    *("system", "user", "assistant", "tool"),
    *("\n", ": ", "-- "),
)


def document(rng: Random, schema: Schema) -> Document:
    """`schema`, then questions with their SQL, in one of many layouts, with litter, as the web has them."""
    before, between, after = rng.choice(_LAYOUTS)
    pieces, answers = [_litter(rng), f"{schema.text()}\n"], []
    for _ in range(QUESTIONS_PER_DOCUMENT):
        question = ask(rng, schema)
        pieces += [f"{before}{question.text}", f"{_litter(rng)}{between}", f"{question.query}{after}"]
        answers.append(len(pieces) - 1)
    return Document(tuple(pieces), tuple(answers))


def _litter(rng: Random) -> str:
    """Nothing, or a line of stray marks, which the model learns to read past."""
    if rng.random() < 0.5:
        return ""
    return f"{''.join(rng.choices(_LITTER, k=rng.randint(1, 5)))}\n"


def random_documents(seed: int) -> Iterator[Document]:
    """Documents without end, the same for the same seed."""
    rng = Random(seed)
    while True:
        yield random_document(rng)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of the world's text and of the agent's chats about it."""
    texts = [document.text for document in islice(random_documents(seed=0), 5000)]
    return build_tokenizer([*texts, *small_talk()], max_length=MAX_CONTEXT)


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A Llama of about a million parameters with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=MAX_CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def make_batch(documents: list[Document], tokenizer: PreTrainedTokenizerFast) -> tuple[Tensor, Tensor]:
    """Token ids and labels, both [documents, longest], padded on the right; off the answers labels say so."""
    ids, labels = [], []
    for document in documents:
        row: list[int] = []
        row_labels: list[int] = []
        for place, tokens in enumerate(tokenizer(list(document.pieces))["input_ids"]):
            row += tokens
            row_labels += tokens if place in document.answers else [IGNORED] * len(tokens)
        ids.append(torch.tensor(row))
        labels.append(torch.tensor(row_labels))
    pad = torch.nn.utils.rnn.pad_sequence
    padding = tokenizer.pad_token_id
    return pad(ids, batch_first=True, padding_value=padding), pad(
        labels, batch_first=True, padding_value=IGNORED
    )


def answer_logits(model: LlamaForCausalLM, ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [answer tokens, vocabulary] and the tokens themselves; padding on the right is harmless."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    return model.lm_head(hidden[targets != IGNORED]), targets[targets != IGNORED]


@torch.inference_mode()
def exact_answers(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, documents: list[Document]
) -> float:
    """The share of answers that greedy decoding would write token by token as the document has them."""
    ids, labels = make_batch(documents, tokenizer)
    logits, targets = answer_logits(model, ids, labels)
    right = torch.ones_like(labels[:, 1:], dtype=torch.bool)
    right[labels[:, 1:] != IGNORED] = logits.argmax(-1) == targets
    starts = (labels[:, 1:] != IGNORED) & (labels[:, :-1] == IGNORED)
    answer = starts.cumsum(-1) + torch.arange(len(ids))[:, None] * (QUESTIONS_PER_DOCUMENT + 1)
    wrong = answer[~right].unique()
    return 1.0 - len(wrong) / (QUESTIONS_PER_DOCUMENT * len(documents))


def make_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    layers = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
    chosen = {id(weight) for weight in layers}
    others = [weight for weight in model.parameters() if id(weight) not in chosen]
    return [
        torch.optim.Muon(layers, lr=0.02, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=4e-3, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def pretrain(
    *, seed: int, num_steps: int, on_step: Callable[[str], None] = print
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A model trained for `num_steps` steps, and its tokenizer; `on_step` hears of every hundredth step."""
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, seed)
    optimizers = make_optimizers(model)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    documents = random_documents(seed + 1)
    exam = list(islice(random_documents(seed), 100))
    start, num_tokens = time.monotonic(), 0
    for step in range(num_steps):
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * _rate_factor(step, num_steps)
        ids, labels = make_batch(list(islice(documents, DOCUMENTS_PER_STEP)), tokenizer)
        with torch.autocast("cpu", torch.bfloat16):
            logits, targets = answer_logits(model, ids, labels)
        loss = torch.nn.functional.cross_entropy(logits.float(), targets)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        num_tokens += ids.numel()
        if (step + 1) % 100 == 0 or step + 1 == num_steps:
            right = exact_answers(model, tokenizer, exam)
            on_step(
                f"step {step + 1} of {num_steps}, {num_tokens / 1e6:.1f} M tokens, "
                f"{time.monotonic() - start:.0f} s: loss {loss.item():.3f}, exact answers {right:.1%}"
            )
    return model.eval(), tokenizer


def _rate_factor(step: int, num_steps: int) -> float:
    """Up in 50 steps, level, down to zero over the last two fifths."""
    return min(1.0, (step + 1) / 50, (1.0 - step / num_steps) / 0.4)


def make(*, out: Path | None = None, seed: int = 0, num_steps: int = NUM_STEPS) -> Path:
    """Pretrain and write the Hugging Face folder `out`, by default the shipped one; returns the folder."""
    folder = out or TINY_FOLDER
    model, tokenizer = pretrain(seed=seed, num_steps=num_steps)
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder


def main() -> None:
    """Pretrain and write the Hugging Face folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=None, help="folder to write; the shipped one if not given"
    )
    parser.add_argument("--steps", type=int, default=NUM_STEPS, help="how long to train")
    parser.add_argument("--seed", type=int, default=0, help="seed of data and weights")
    arguments = parser.parse_args()
    make(out=arguments.out, seed=arguments.seed, num_steps=arguments.steps)


if __name__ == "__main__":
    main()
