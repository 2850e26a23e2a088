from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from raybolt.benchmarks.sql.pretrain import (
    IGNORED,
    exact_answers,
    make_batch,
    make_model,
    make_tokenizer,
    pretrain,
    random_documents,
)
from raybolt.env.models import TINY_FOLDER

EXAM_SEED = 12345


@pytest.fixture(scope="module")
def tiny():
    return AutoModelForCausalLM.from_pretrained(TINY_FOLDER).eval(), AutoTokenizer.from_pretrained(
        TINY_FOLDER
    )


def test_the_shipped_weights_are_small():
    assert (TINY_FOLDER / "model.safetensors").stat().st_size <= 10_000_000


def test_the_shipped_model_loads_and_generates(tiny):
    model, tokenizer = tiny
    prompt = "club(club_id, name, wins)\nQ: Show the name of the club rows.\nA: "
    ids = torch.tensor([tokenizer(prompt)["input_ids"]])
    reply = model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
    assert tokenizer.decode(reply).startswith("SELECT ")


def test_the_shipped_tokenizer_is_the_one_made_again(tiny):
    _, tokenizer = tiny
    assert tokenizer.get_vocab() == make_tokenizer().get_vocab()


def test_the_shipped_model_reads_schemas_it_has_never_seen(tiny):
    model, tokenizer = tiny
    exam = list(islice(random_documents(EXAM_SEED), 50))
    assert exact_answers(model, tokenizer, exam) > 0.9


def test_labels_are_the_tokens_of_the_sql_and_nothing_else():
    tokenizer = make_tokenizer()
    (document,) = islice(random_documents(3), 1)
    ids, labels = make_batch([document], tokenizer)
    assert tokenizer.decode(ids[0]) == document.text
    answers = "".join(document.pieces[place] for place in document.answers)
    assert tokenizer.decode(labels[labels != IGNORED]) == answers


def test_random_weights_answer_nothing_exactly():
    tokenizer = make_tokenizer()
    documents = list(islice(random_documents(4), 3))
    assert exact_answers(make_model(tokenizer, seed=0), tokenizer, documents) == 0.0


def test_a_few_steps_of_pretraining_lower_the_loss_and_can_be_repeated(capsys):
    first, _ = pretrain(num_steps=2, seed=1)
    again, _ = pretrain(num_steps=2, seed=1)
    assert "step 2 " in capsys.readouterr().out
    for weight, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(weight, other)


def test_the_tiny_folder_is_written_and_can_be_loaded(tmp_path: Path):
    from raybolt.benchmarks.sql.pretrain import make

    make(out=tmp_path, seed=0, num_steps=1)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).num_parameters() < 2_500_000
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template
