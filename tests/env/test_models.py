"""Models by name, and what is said of names that are none."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer

from raybolt.env import models
from raybolt.env.codec import codec_for
from raybolt.env.errors import UnknownModel
from raybolt.env.models import resolve_model


@pytest.fixture
def folder(tmp_path, make_tokenizer, templates):
    """A real, small, random Llama with a tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=610,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=512,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    make_tokenizer(templates["chatml"]).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_folder_is_a_model(folder):
    source = resolve_model(folder)
    assert (source.path, source.kind) == (str(folder), "folder")
    codec = codec_for(str(folder))
    assert (codec.max_context, codec.vocab_size) == (512, 610)
    assert codec_for(str(folder)) is codec
    assert codec_for(str(folder), context=100).max_context == 100


def test_the_shipped_tiny_model_resolves_and_calls_tools():
    codec = codec_for("tiny")
    assert resolve_model("tiny").kind == "folder"
    assert codec.template.is_incremental
    assert codec.template.knows_tools


def test_a_hub_id_is_left_to_the_hub():
    source = resolve_model("Qwen/Qwen2.5-0.5B-Instruct")
    assert (source.path, source.kind) == ("Qwen/Qwen2.5-0.5B-Instruct", "hub")


def test_a_folder_that_is_no_model_says_what_is_missing(tmp_path, folder):
    with pytest.raises(UnknownModel, match=r"it lacks config.json, weights .*, a tokenizer"):
        resolve_model(tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UnknownModel, match=r"it lacks weights \(\*.safetensors or pytorch_model\*.bin\)"):
        resolve_model(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tny", "no model 'tny': did you mean 'tiny'?"),
        ("smollm2-135", "did you mean 'smollm2-135m'?"),
        ("/no/such/place", "no such file or folder; expected a hub id"),
        ("./runs/x/model", "no such file or folder"),
    ],
)
def test_an_unknown_name_is_an_error_that_helps(name, message):
    with pytest.raises(UnknownModel) as caught:
        resolve_model(name)
    assert message in str(caught.value)


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"x")
    with pytest.raises(UnknownModel, match=r"is a file, but no \.gguf"):
        resolve_model(tmp_path / "weights.bin")


def test_a_broken_configuration_is_an_error_that_names_the_model(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(UnknownModel, match=r"model '.*' cannot be read"):
        codec_for(str(folder))


def test_a_model_without_a_chat_template_is_an_error(folder, make_tokenizer):
    (folder / "chat_template.jinja").unlink()
    make_tokenizer(None).save_pretrained(folder)
    with pytest.raises(UnknownModel, match="the tokenizer has no chat template"):
        codec_for(str(folder))


@pytest.fixture
def gguf_file(tmp_path, make_tokenizer, templates):
    """A GGUF file of a random Llama in float32, as llama.cpp would write it."""
    gguf = pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    path = tmp_path / "small.gguf"
    size, vocab = 32, 610
    core = json.loads(make_tokenizer(None).backend_tokenizer.to_str())
    tokens = dict(core["model"]["vocab"])
    tokens |= {added["content"]: added["id"] for added in core["added_tokens"]}
    listed = sorted(tokens, key=tokens.__getitem__)
    listed += [f"<unused{number}>" for number in range(vocab - len(listed))]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(size)
    writer.add_block_count(1)
    writer.add_feed_forward_length(size)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(size // 2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocab)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(listed)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in listed])
    writer.add_token_merges([" ".join(merge) for merge in core["model"]["merges"]])
    writer.add_eos_token_id(tokens["<|im_end|>"])
    writer.add_chat_template(templates["without tools"])
    random = np.random.default_rng(0)
    shapes = {"token_embd": (vocab, size), "output_norm": (size,), "output": (vocab, size)}
    block = {
        "attn_q": (size, size),
        "attn_k": (size, size),
        "attn_v": (size, size),
        "attn_output": (size, size),
    }
    block |= {"ffn_gate": (size, size), "ffn_up": (size, size), "ffn_down": (size, size)}
    block |= {"attn_norm": (size,), "ffn_norm": (size,)}
    for name, shape in {**shapes, **{f"blk.0.{name}": shape for name, shape in block.items()}}.items():
        writer.add_tensor(f"{name}.weight", random.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_becomes_a_plain_folder_once(gguf_file, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM

    monkeypatch.setenv("RAYBOLT_CACHE", str(tmp_path / "cache"))
    source = resolve_model(gguf_file)
    assert source.path.startswith(str(tmp_path / "cache" / "small-"))
    model = AutoModelForCausalLM.from_pretrained(source.path)
    assert not hasattr(model.config, "quantization_config")
    assert model.float().config.vocab_size == 610
    assert Tokenizer.from_file(f"{source.path}/tokenizer.json").get_vocab_size() >= 600
    codec = codec_for(str(gguf_file))
    assert codec.max_context == 256
    assert not codec.template.knows_tools
    monkeypatch.setattr(models, "_convert", None)
    assert resolve_model(gguf_file) == source


def test_a_gguf_file_that_is_none_is_an_error_and_leaves_nothing_behind(tmp_path, monkeypatch):
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    monkeypatch.setenv("RAYBOLT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF nothing")
    with pytest.raises(UnknownModel, match=r"broken\.gguf cannot be read as a GGUF model"):
        resolve_model(tmp_path / "broken.gguf")
    assert list((tmp_path / "cache").iterdir()) == []


def test_smollm2_without_its_wheel_comes_from_the_hub(monkeypatch):
    monkeypatch.setattr(models, "_wheel_file", lambda: None)
    assert resolve_model("smollm2-135m").path == "HuggingFaceTB/SmolLM2-135M-Instruct"
