"""A tiny random Llama with a tokenizer, made once: every law of the learner holds for it in float64."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory) -> Path:
    """With embeddings large enough that its logits can be far apart: it can learn a preference, not only begin to."""
    return write_tiny_model(tmp_path_factory.mktemp("toy-llama"), spread=0.2)


def write_tiny_model(path: Path, spread: float = 0.02) -> Path:
    """Two layers, 32 wide, vocabulary 64: a saved model directory with a word-level chat tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        initializer_range=spread,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    words = ["<unk>", "<bos>", "<eos>", *(f"w{i}" for i in range(61))]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", bos_token="<bos>", unk_token="<unk>")
    tokenizer.chat_template = (
        "{% for m in messages %}<bos> {{ m.content }} <eos> {% endfor %}{% if add_generation_prompt %}<bos> {% endif %}"
    )
    tokenizer.save_pretrained(path)
    return path
