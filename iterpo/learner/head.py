"""The language-model head over hidden states, in chunks: neither logits nor their gradient exist for all tokens.

With logits z / T and p = softmax(z / T), the log-prob of the token y moves with z by

    d log p(y) / d z = (onehot(y) - p) / T

which no coefficient enters. So one pass over the head gives every token's log-prob and, in the width of a hidden state,
its slope: what the log-prob's gradient is with respect to the hidden state. A coefficient that becomes known later
multiplies the slope, and the head is not looked at again. The entropy's gradient is -p (log p + H) / T, that of
KL(q; p) is (p - q) / T.

Not implemented: logits that are more than the hidden states times one matrix (`refuse_other_heads`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from iterpo.errors import InvalidConfig
from iterpo.precision import wide

CHUNK_BYTES = {"cpu": 32 * 1024**2, "cuda": 64 * 1024**2}
"""Of the logits that exist at the same time, in float32: 170 tokens at a vocabulary of 49152 on CPUs, where half as
many took a sixth longer in bfloat16, and twice as many were 3 % faster; on GPUs nothing was compared."""

PROBED_TOKENS = 8
ROUNDING = 0.02
"""Of the largest logit: bfloat16 rounds to a 250th, and a factor that is nearer to 1 would hardly matter."""


@dataclass(frozen=True)
class Slopes:
    logprobs: Tensor
    """[B] nats, float32 (float64 in a float64 model)."""
    of_logprobs: Tensor
    """[B, hidden] gradient of each log-prob with respect to its hidden state."""
    of_entropy: Tensor | None
    """[B, hidden] likewise of the entropy where the token was drawn, when asked for."""


class Head:
    """Every method takes hidden states [B, hidden], and the temperatures [B] that tokens were drawn with."""

    def __init__(self, weight: Tensor) -> None:
        """`weight`: [vocabulary, hidden]."""
        self.weight = weight
        self.chunk = max(1, CHUNK_BYTES[weight.device.type] // (4 * len(weight)))

    @torch.no_grad()
    def logprobs(self, hidden: Tensor, targets: Tensor, temperature: Tensor) -> Tensor:
        """[B] of the tokens `targets` [B], nats."""
        parts = [self._softmax(h, t, y)[1] for h, t, y in self._chunks(hidden, temperature, targets)]
        return torch.cat(parts)

    @torch.no_grad()
    def slopes(self, hidden: Tensor, targets: Tensor, temperature: Tensor, entropy: bool = False) -> Slopes:
        """Of the tokens `targets` [B]; with `entropy`, its slopes too. Slopes are in the weight's type."""
        logprobs, of_logprobs, of_entropy = [], [], []
        for h, t, y in self._chunks(hidden, temperature, targets):
            p, log_p = self._softmax(h, t, y)
            logprobs.append(log_p)
            if entropy:
                information = p * p.clamp(min=torch.finfo(p.dtype).tiny).log()
                of_entropy.append(self._to_hidden(p * information.sum(-1, keepdim=True) - information, t))
            p[torch.arange(len(y), device=p.device), y] -= 1
            of_logprobs.append(self._to_hidden(p.neg_(), t))
        return Slopes(torch.cat(logprobs), torch.cat(of_logprobs), torch.cat(of_entropy) if entropy else None)

    @torch.no_grad()
    def kl(self, hidden: Tensor, other: Tensor, temperature: Tensor) -> Tensor:
        """[B] KL(p; q) over the vocabulary, nats: p from `hidden`, q from `other`."""
        parts = []
        for h, o, t in self._chunks(hidden, other, temperature):
            log_p, log_q = (self._scaled(x, t).log_softmax(-1) for x in (h, o))
            parts.append((log_p.exp() * (log_p - log_q)).sum(-1))
        return torch.cat(parts)

    @torch.no_grad()
    def kl_slopes(self, hidden: Tensor, other: Tensor, temperature: Tensor) -> Tensor:
        """[B, hidden] gradient of KL(q; p) with respect to `hidden`: p from it, q from `other`."""
        parts = []
        for h, o, t in self._chunks(hidden, other, temperature):
            p, q = (self._softmax(x, t)[0] for x in (h, o))
            parts.append(self._to_hidden(p - q, t))
        return torch.cat(parts)

    def _scaled(self, hidden: Tensor, temperature: Tensor) -> Tensor:
        logits = wide(hidden @ self.weight.T)
        return logits if bool((temperature == 1).all()) else logits.div_(temperature[:, None].to(logits.dtype))

    def _softmax(self, hidden: Tensor, temperature: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Probabilities [b, vocabulary], and the log-probs [b] of the targets; in one buffer."""
        z = self._scaled(hidden, temperature)
        z -= z.amax(-1, keepdim=True)
        chosen = z.new_zeros(len(z)) if targets is None else z.gather(1, targets[:, None])[:, 0]
        z.exp_()
        total = z.sum(-1, keepdim=True)
        return z.div_(total), chosen - total[:, 0].log()

    def _to_hidden(self, of_scaled: Tensor, temperature: Tensor) -> Tensor:
        """[b, hidden] of a gradient with respect to z / T, which it may overwrite."""
        of_scaled /= temperature[:, None].to(of_scaled.dtype)
        return of_scaled.to(self.weight.dtype) @ self.weight

    def _chunks(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        return zip(*(t.split(self.chunk) for t in tensors), strict=True)


@torch.no_grad()
def refuse_other_heads(model: Any) -> None:
    """Raises InvalidConfig for a model whose logits are not what `Head` makes of its hidden states: its head adds a
    bias (Phi), or its logits are scaled (Granite, Cohere) or capped (Gemma 2)."""
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    if getattr(head, "bias", None) is not None:
        raise _other("its head adds a bias")
    if cap := getattr(config, "final_logit_softcapping", None):
        raise _other(f"final_logit_softcapping is {cap}")
    ids = torch.arange(PROBED_TOKENS, device=head.weight.device)[None] % config.vocab_size
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    plain, actual = (hidden @ head.weight.T).float(), model(input_ids=ids, use_cache=False).logits.float()
    if (plain - actual).abs().max() > ROUNDING * plain.abs().max():
        raise _other("its logits are scaled, or otherwise changed")


def _other(why: str) -> InvalidConfig:
    return InvalidConfig(
        f"Logits of this model are not its hidden states times one matrix: {why}.",
        "Name another in model.path: those of Llama, Mistral, Qwen and SmolLM are learned.",
        "HEAD_NOT_IMPLEMENTED",
    )
