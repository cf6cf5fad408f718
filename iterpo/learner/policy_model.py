"""A base model with the policy's LoRA adapter: log-probs of sampled tokens, the backward of one coefficient a token.

The head is evaluated in chunks and its gradient written down by hand, so neither logits nor their gradient are ever
kept for all tokens: with logits z/T, p = softmax(z/T) and loss -sum_b c_b log p_b(y_b),

    d loss / d z_b = c_b (p_b - onehot(y_b)) / T

Two terms over the whole vocabulary may stand beside it: -sum_b k_b KL(ref_b; p_b), whose gradient is
-k_b (p_b - ref_b) / T, and an entropy bonus -e sum_b H(p_b), whose gradient is e p_b (log p_b + H) / T.

A micro-batch is one row of tokens without padding, each prompt in it once (`packing`, `attention`), unless the model's
attention is not the plain causal one: then sequences are padded to the right, which needs no mask, since under a causal
one no real token sees it. Dropout is off. Not implemented: gradient checkpointing of whole layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM

from iterpo.errors import CorruptModel
from iterpo.learner.attention import is_plain, shared_prompts
from iterpo.learner.packing import micro_batches, pack, padded_batches
from iterpo.run_config import LoraConfig
from iterpo.types import Completion

HEAD_CHUNK = 512
"""Tokens whose logits exist at the same time: 100 MB in float32 at a vocabulary of 49152."""
Adapter = dict[str, Tensor]
Forward = tuple[Tensor, Tensor, Tensor]
"""What `PolicyModel.selected` returns, with its graph."""
POLICY = "default"
"""PEFT's name of the policy's adapter."""


class PolicyModel:
    """`logprobs` and `backward` take completions and speak of their tokens flat, in order: [B]."""

    def __init__(self, base: Path, lora: LoraConfig, seed: int, budget: int, dtype: str = "auto") -> None:
        """`budget`: tokens of one micro-batch. `dtype` auto: bfloat16, adapters in float32."""
        torch.manual_seed(seed)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.mixed = dtype == "auto"
        # Eager attention beats scaled_dot_product on CPU backwards: 945 against 716 tokens/s (DECISIONS.md).
        attention = "eager" if self.device.type == "cpu" else "sdpa"
        try:
            model = AutoModelForCausalLM.from_pretrained(
                base, dtype=torch.bfloat16 if self.mixed else getattr(torch, dtype), attn_implementation=attention
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise CorruptModel(f"{base} is not a loadable model: {error}.", "Name another in model.path.") from error
        self.lora = lora
        self.peft = get_peft_model(model, self._lora(), autocast_adapter_dtype=self.mixed).to(self.device).eval()
        self.decoder = model.get_decoder()
        self.shares_prompts = is_plain(self.decoder.config)
        self.head: Tensor = model.get_output_embeddings().weight
        self.budget = budget

    def _lora(self) -> PeftLoraConfig:
        return PeftLoraConfig(
            r=self.lora.r,
            lora_alpha=self.lora.alpha,
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """The policy's own; another adapter on the same base (a critic's) has others."""
        return self.adapter_parameters(POLICY)

    def adapter_parameters(self, name: str) -> list[torch.nn.Parameter]:
        return [p for key, p in self.peft.named_parameters() if f".{name}." in key]

    def add_adapter(self, name: str) -> None:
        """Another adapter of the same shape on the same base; `using` switches it on."""
        self.peft.add_adapter(name, self._lora(), autocast_adapter_dtype=self.mixed)
        self.peft.to(self.device).eval()
        self.peft.set_adapter(POLICY)

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Within: that adapter instead of the policy's."""
        self.peft.set_adapter(name)
        try:
            yield
        finally:
            self.peft.set_adapter(POLICY)

    def forward(self, completions: Sequence[Completion]) -> Forward | None:
        """What `logprobs` and then `backward` can share, while no weight changes in between; None when the completions
        do not fit into one micro-batch."""
        batches = self.micro_batches(completions)
        if len(batches) != 1:
            return None
        with torch.enable_grad():
            return self.selected([completions[i] for i in batches[0]])

    @torch.no_grad()
    def logprobs(self, completions: Sequence[Completion], forward: Forward | None = None) -> Tensor:
        """[B] float32 (float64 in a float64 model), nats, at each completion's own sampling temperature."""
        parts: list[Tensor] = [torch.empty(0)] * len(completions)
        for batch in self.micro_batches(completions):
            chosen = [completions[i] for i in batch]
            selected, targets, temperature = forward or self.selected(chosen)
            rows = torch.cat(
                [
                    self._log_softmax(h, t).gather(1, y[:, None])[:, 0]
                    for h, y, t in _chunks(selected, targets, temperature)
                ]
            )
            for index, part in zip(batch, rows.split([len(c.token_ids) for c in chosen]), strict=True):
                parts[index] = part.cpu()
        return torch.cat(parts)

    def backward(
        self,
        completions: Sequence[Completion],
        coefficients: Tensor,
        reference_kl: Tensor | None = None,
        entropy: float = 0.0,
        forward: Forward | None = None,
    ) -> None:
        """Accumulate the gradient of -(coefficients * logprobs).sum() into the adapter; coefficients are [B].

        Two more terms, at each token's own temperature: -(reference_kl * KL(reference; current)).sum(), [B], and
        -entropy * H(current) of every token.
        """
        lengths = [len(c.token_ids) for c in completions]
        weights = coefficients.split(lengths)
        kl_weights = None if reference_kl is None else reference_kl.split(lengths)
        for batch in self.micro_batches(completions):
            chosen = [completions[i] for i in batch]
            with torch.enable_grad():
                selected, targets, temperature = forward or self.selected(chosen)
            weight = torch.cat([weights[i] for i in batch]).to(self.device)
            gradient = self._head_gradient(selected.detach(), targets, temperature, weight, entropy)
            if kl_weights is not None:
                with torch.no_grad(), self.peft.disable_adapter():
                    base, _, _ = self.selected(chosen)
                k = torch.cat([kl_weights[i] for i in batch]).to(self.device)
                gradient = gradient + self._kl_gradient(selected.detach(), base, temperature, k)
            selected.backward(gradient)

    @torch.no_grad()
    def reference_kl(self, completions: Sequence[Completion]) -> Tensor:
        """[B] KL(base; current) where each token was drawn, over the vocabulary, nats, at each token's temperature."""
        parts: list[Tensor] = [torch.empty(0)] * len(completions)
        for batch in self.micro_batches(completions):
            chosen = [completions[i] for i in batch]
            current, _, temperature = self.selected(chosen)
            with self.peft.disable_adapter():
                base, _, _ = self.selected(chosen)
            rows = []
            for h, h_base, t in _chunks(current, base, temperature):
                p, q = self._log_softmax(h, t), self._log_softmax(h_base, t)
                rows.append((q.exp() * (q - p)).sum(-1))
            for index, part in zip(batch, torch.cat(rows).split([len(c.token_ids) for c in chosen]), strict=True):
                parts[index] = part.cpu()
        return torch.cat(parts)

    @torch.no_grad()
    def kl(self, completions: Sequence[Completion]) -> float:
        """Mean over the completions' tokens of KL(current; base), exact over the vocabulary, nats, temperature 1."""
        total, count = 0.0, 0
        for batch in self.micro_batches(completions):
            chosen = [completions[i] for i in batch]
            current, targets, _ = self.selected(chosen)
            with self.peft.disable_adapter():
                base, _, _ = self.selected(chosen)
            one = torch.ones(len(targets), device=self.device)
            for h, h_base, t in _chunks(current, base, one):
                p, q = self._log_softmax(h, t), self._log_softmax(h_base, t)
                total += float((p.exp() * (p - q)).sum())
            count += len(targets)
        return total / max(1, count)

    @contextmanager
    def base(self) -> Iterator[None]:
        """Within: the adapter is off."""
        with self.peft.disable_adapter():
            yield

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Within: the adapter folded into the base and rounded to its type, as merged delivery serves it."""
        layers = [m for m in self.peft.modules() if isinstance(m, LoraLinear)]
        pristine = [layer.base_layer.weight.data for layer in layers]
        try:
            for layer, weight in zip(layers, pristine, strict=True):
                a, b = layer.lora_A[POLICY].weight.float(), layer.lora_B[POLICY].weight.float()
                update = layer.scaling[POLICY] * (b @ a)
                layer.base_layer.weight.data = (weight.float() + update).to(weight.dtype).detach()
            with self.peft.disable_adapter():
                yield
        finally:
            for layer, weight in zip(layers, pristine, strict=True):
                layer.base_layer.weight.data = weight

    def adapter(self, name: str = POLICY) -> Adapter:
        """A copy of an adapter's weights."""
        return {key: t.detach().clone() for key, t in get_peft_model_state_dict(self.peft, adapter_name=name).items()}

    def load_adapter(self, adapter: Adapter, name: str = POLICY) -> None:
        set_peft_model_state_dict(self.peft, adapter, adapter_name=name)

    @torch.no_grad()
    def structure(self) -> dict[str, float]:
        """Of the update BA to the weights W that it changes: `relative_norm`, |BA| / |W| in Frobenius norms over all
        modules, and `stable_rank`, the mean over changed modules of |BA|^2 over its largest singular value squared,
        from 1 to r. r x r products only: (BA)'(BA) and (B'B)(AA') share their eigenvalues but for zeros."""
        changed, whole, ranks = 0.0, 0.0, []
        for module in self.peft.modules():
            if not isinstance(module, LoraLinear) or POLICY not in module.lora_A:
                continue
            a, b = (side[POLICY].weight.double() for side in (module.lora_A, module.lora_B))
            if not bool(a.isfinite().all() & b.isfinite().all()):
                return {"relative_norm": math.nan}
            squares = torch.linalg.eigvals((b.T @ b) @ (a @ a.T)).real.clamp(min=0) * module.scaling[POLICY] ** 2
            whole += float(module.get_base_layer().weight.double().square().sum())
            changed += float(squares.sum())
            if squares.max() > 0:
                ranks.append(float(squares.sum() / squares.max()))
        numbers = {"relative_norm": math.sqrt(changed / whole)}
        return numbers | ({"stable_rank": sum(ranks) / len(ranks)} if ranks else {})

    def save_adapter(self, directory: Path) -> None:
        """Write the two files of the policy's PEFT adapter."""
        self.peft.save_pretrained(str(directory), safe_serialization=True, selected_adapters=[POLICY])
        (directory / "README.md").unlink(missing_ok=True)

    def micro_batches(self, completions: Sequence[Completion]) -> list[list[int]]:
        if self.shares_prompts:
            return micro_batches(completions, self.budget)
        return padded_batches([len(c.prompt_token_ids) + len(c.token_ids) for c in completions], self.budget)

    def selected(self, completions: Sequence[Completion]) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden states that predict the completions' tokens [B, hidden], the tokens [B] and temperatures [B]."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            hidden = self._packed(completions) if self.shares_prompts else self._padded(completions)
        targets = torch.tensor([y for c in completions for y in c.token_ids], device=self.device)
        # Greedy completions (temperature 0) are scored under the distribution that they were the argmax of.
        steps = [c.temperature or 1.0 for c in completions for _ in c.token_ids]
        temperature = torch.tensor(steps, device=self.device, dtype=torch.float64)
        return hidden, targets, temperature

    def _packed(self, completions: Sequence[Completion]) -> Tensor:
        """[B, hidden] from one row of tokens, each prompt computed once."""
        layout = pack(completions).to(self.device)
        with shared_prompts(self.decoder.config):
            ids, positions = layout.ids[None], layout.positions[None]
            row = self.decoder(input_ids=ids, position_ids=positions, use_cache=False, layout=layout).last_hidden_state
        hidden: Tensor = row[0].index_select(0, layout.reads)
        return hidden

    def _padded(self, completions: Sequence[Completion]) -> Tensor:
        """[B, hidden] from one row a sequence, by the model's own attention."""
        ids = [torch.tensor(c.prompt_token_ids + c.token_ids) for c in completions]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)[:, :-1].to(self.device)
        rows = [i for i, c in enumerate(completions) for _ in c.token_ids]
        columns = [len(c.prompt_token_ids) - 1 + t for c in completions for t in range(len(c.token_ids))]
        hidden: Tensor = self.decoder(input_ids=padded, use_cache=False).last_hidden_state[rows, columns]
        return hidden

    def _log_softmax(self, hidden: Tensor, temperature: Tensor) -> Tensor:
        logits = hidden @ self.head.T
        wide = logits if logits.dtype == torch.float64 else logits.float()
        return (wide / temperature[:, None].to(wide.dtype)).log_softmax(-1)

    @torch.no_grad()
    def _head_gradient(
        self, hidden: Tensor, targets: Tensor, temperature: Tensor, coefficients: Tensor, entropy: float
    ) -> Tensor:
        """[B, hidden] gradient of -(c * logprobs).sum() - entropy * H with respect to the hidden states."""
        parts = []
        for h, y, t, c in _chunks(hidden, targets, temperature, coefficients):
            log_p = self._log_softmax(h, t)
            gradient = log_p.exp()
            bonus = entropy * gradient * (log_p - (gradient * log_p).sum(-1, keepdim=True)) if entropy else None
            gradient[torch.arange(len(y)), y] -= 1
            gradient *= c.to(gradient.dtype)[:, None]
            gradient = gradient if bonus is None else gradient + bonus
            gradient /= t.to(gradient.dtype)[:, None]
            parts.append(gradient.to(self.head.dtype) @ self.head)
        return torch.cat(parts)

    @torch.no_grad()
    def _kl_gradient(self, hidden: Tensor, base: Tensor, temperature: Tensor, weights: Tensor) -> Tensor:
        """[B, hidden] gradient of -(k * KL(base; current)).sum(): d KL / d z = (p - ref) / T."""
        parts = []
        for h, h_base, t, k in _chunks(hidden, base, temperature, weights):
            gradient = self._log_softmax(h, t).exp_() - self._log_softmax(h_base, t).exp_()
            gradient *= -(k / t).to(gradient.dtype)[:, None]
            parts.append(gradient.to(self.head.dtype) @ self.head)
        return torch.cat(parts)


def _chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(t.split(HEAD_CHUNK) for t in tensors), strict=True)
