"""A tiny random Llama with a tokenizer, made once: every law of the learner holds for it in float64."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """A model of 32 dimensions has no work for two: beside other processes they only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def float64_throughout() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        in_float64(patch)
        yield


def in_float64(patch: pytest.MonkeyPatch) -> None:
    """transformers computes norms and attention's weights in float32 whatever the model's type is: two orders of
    addition would differ by 1e-7, and no law of float64 could be seen."""
    import torch
    from transformers.models.llama import modeling_llama

    def norm(self, hidden):
        wide = hidden if hidden.dtype == torch.float64 else hidden.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * (wide * scale).to(hidden.dtype)

    def attention(module, query, key, value, attention_mask, scaling, **_):
        key, value = (modeling_llama.repeat_kv(x, module.num_key_value_groups) for x in (key, value))
        scores = query @ key.mT * scaling + (0 if attention_mask is None else attention_mask)
        weights = (scores if scores.dtype == torch.float64 else scores.float()).softmax(-1).to(query.dtype)
        return (weights @ value).transpose(1, 2).contiguous(), weights

    patch.setattr(modeling_llama.LlamaRMSNorm, "forward", norm)
    patch.setattr(modeling_llama, "eager_attention_forward", attention)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory) -> Path:
    """With embeddings large enough that its logits can be far apart: it can learn a preference, not only begin to."""
    return write_tiny_model(tmp_path_factory.mktemp("toy-llama"), spread=0.2)


def write_tiny_model(path: Path, spread: float = 0.02, layers: int = 2) -> Path:
    """Two layers by default, 32 wide, vocabulary 64: a saved model directory with a word-level chat tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
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
