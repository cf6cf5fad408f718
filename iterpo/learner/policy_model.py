"""A base model with the policy's LoRA adapter: log-probs of sampled tokens, the backward of one coefficient a token.

A micro-batch is one row of tokens without padding, each prompt in it once (`packing`, `attention`), unless the model's
attention is not the plain causal one: then sequences are padded to the right, which needs no mask, since under a causal
one no real token sees it. The head is evaluated in chunks (`head`), so neither logits nor their gradient are ever kept
for all tokens. LoRA layers, gated layers and norms keep less than autograd would (`adapters`, `gates`, `norms`). How
long a row may be is found from free memory (`memory`); layers of a sequence that is longer are computed again in the
backward (`recompute`). Dropout is off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
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
from iterpo.learner import adapters, gates, norms
from iterpo.learner.attention import is_plain, shared_prompts
from iterpo.learner.head import Head, Slopes, refuse_other_heads
from iterpo.learner.memory import TokenBudget, fitting_budget, kept_bytes
from iterpo.learner.packing import micro_batches, pack, padded_batches
from iterpo.learner.recompute import recomputed
from iterpo.learner.team import Team, present
from iterpo.policies.merge import rounded
from iterpo.precision import compute_dtype
from iterpo.run_config import LoraConfig
from iterpo.types import Completion, FinishReason

Adapter = dict[str, Tensor]
POLICY = "default"
"""PEFT's name of the policy's adapter."""
PROBE_LENGTHS = (32, 96)
"""Tokens."""


@dataclass(frozen=True)
class Pass:
    """One micro-batch's forward, its graph kept until `backward`."""

    tokens: Tensor
    """[b] where its tokens lie among those of all completions."""
    hidden: Tensor
    """[b, hidden]"""
    slopes: Slopes
    kl_slopes: Tensor | None
    """[b, hidden] of KL(reference; current), when asked for."""

    @property
    def logprobs(self) -> Tensor:
        """[b]"""
        return self.slopes.logprobs.cpu()

    def backward(self, coefficients: Tensor, reference_kl: Tensor | None = None, entropy: float = 0.0) -> None:
        """Accumulate the gradient of -(coefficients * logprobs).sum() into the adapter; coefficients are [b].

        Two more terms: -(reference_kl * KL(reference; current)).sum(), [b], and -entropy * H(current) of every token.
        """
        gradient = self._each(coefficients) * self.slopes.of_logprobs
        if self.slopes.of_entropy is not None:
            gradient = gradient + entropy * self.slopes.of_entropy
        if reference_kl is not None and self.kl_slopes is not None:
            gradient = gradient + self._each(reference_kl) * self.kl_slopes
        self.hidden.backward(-gradient.to(self.hidden.dtype))

    def _each(self, numbers: Tensor) -> Tensor:
        """[b, 1], not rounded to the hidden states' bfloat16."""
        return numbers.to(self.hidden.device, self.slopes.logprobs.dtype)[:, None]


class PolicyModel:
    """`logprobs` and `passes` take completions and speak of their tokens flat, in order: [B]."""

    def __init__(self, base: Path, lora: LoraConfig, seed: int, budget: int | None = None, dtype: str = "auto") -> None:
        """`budget`: tokens of one micro-batch; None: what free memory allows. `dtype` auto: bfloat16 where the
        hardware has it, else float32; adapters are in float32 beside either (iterpo.precision)."""
        torch.manual_seed(seed)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        compute = compute_dtype(dtype, self.device.type)
        self.mixed = compute is torch.bfloat16
        # Eager attention beats scaled_dot_product on CPU backwards: 945 against 716 tokens/s (DECISIONS.md).
        attention = "eager" if self.device.type == "cpu" else "sdpa"
        try:
            model = AutoModelForCausalLM.from_pretrained(base, dtype="auto", attn_implementation=attention)
        except (OSError, ValueError, SafetensorError) as error:
            raise CorruptModel(f"{base} is not a loadable model: {error}.", "Name another in model.path.") from error
        self.served_dtype = compute if compute is torch.float64 else compute_dtype("auto", self.device.type)
        """What an engine on hardware like this one rounds merged weights to, unless it is told otherwise."""
        model = model.to(compute)
        gates.keep_less(model)
        if self.mixed:  # in one type for all there is nothing to save
            norms.keep_less(model)
        self.lora = lora
        self.peft = get_peft_model(model, self._lora(), autocast_adapter_dtype=self.mixed).to(self.device).eval()
        adapters.in_one(self.peft)
        refuse_other_heads(model)
        self.decoder = model.get_decoder()
        self.shares_prompts = is_plain(self.decoder.config)
        self.head = Head(model.get_output_embeddings().weight)
        self.team = Team()
        self.budget = TokenBudget(max(PROBE_LENGTHS))
        processes = present().size if self.device.type == "cpu" else 1
        self.budget = fitting_budget(self.device, compute, self._bytes_a_token(), budget, processes)

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

    @property
    def number(self) -> torch.dtype:
        """Of log-probs and coefficients."""
        return torch.float64 if self.head.weight.dtype == torch.float64 else torch.float32

    @contextmanager
    def shared_by(self, team: Team) -> Iterator[None]:
        """Within: whatever is measured or differentiated is done by all ranks of the team together."""
        self.team = self.budget.team = team
        try:
            self.budget.agree()
            yield
        finally:
            self.team = self.budget.team = Team()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within: this process's own affair, in the middle of a team's. Rows that must be shorter here stay the team's
        length there."""
        team, budget = self.team, self.budget
        self.team, self.budget = Team(), TokenBudget(budget.tokens, budget.most, budget.fits)
        try:
            yield
        finally:
            self.team, self.budget = team, budget

    def add_up_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Over the ranks; a rank that had nothing to do has zeros."""
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.team.add_up([p.grad for p in parameters if p.grad is not None])

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

    def logprobs(self, completions: Sequence[Completion]) -> Tensor:
        """[B] float32 (float64 in a float64 model), nats, at each completion's own sampling temperature."""
        return self.measured(completions, lambda chosen: self.head.logprobs(*self.selected(chosen)))

    def passes(
        self, completions: Sequence[Completion], entropy: bool = False, reference_kl: bool = False
    ) -> Iterator[Pass]:
        """One forward a micro-batch of this rank's. Ask for the next only after its `backward`, which frees what it
        keeps."""
        ends = torch.tensor([len(c.token_ids) for c in completions]).cumsum(0).tolist()
        for batch in self.team.own(self.micro_batches(completions)):
            chosen = [completions[i] for i in batch]
            tokens = torch.cat([torch.arange(ends[i] - len(completions[i].token_ids), ends[i]) for i in batch])
            with torch.enable_grad():
                hidden, targets, temperature = self.selected(chosen)
            kl_slopes = None
            if reference_kl:
                with torch.no_grad(), self.base():
                    base, _, _ = self.selected(chosen)
                kl_slopes = self.head.kl_slopes(hidden.detach(), base, temperature)
            slopes = self.head.slopes(hidden.detach(), targets, temperature, entropy)
            yield Pass(tokens, hidden, slopes, kl_slopes)
            del hidden, slopes

    def backward(
        self,
        completions: Sequence[Completion],
        coefficients: Tensor,
        reference_kl: Tensor | None = None,
        entropy: float = 0.0,
    ) -> None:
        """`Pass.backward` of every micro-batch, for coefficients [B] that are known."""
        for part in self.passes(completions, entropy > 0, reference_kl is not None):
            kl = None if reference_kl is None else reference_kl[part.tokens]
            part.backward(coefficients[part.tokens], kl, entropy)

    def reference_kl(self, completions: Sequence[Completion]) -> Tensor:
        """[B] KL(base; current) where each token was drawn, over the vocabulary, nats, at each token's temperature."""

        def measure(chosen: Sequence[Completion]) -> Tensor:
            current, _, temperature = self.selected(chosen)
            with self.base():
                return self.head.kl(self.selected(chosen)[0], current, temperature)

        return self.measured(completions, measure)

    def kl(self, completions: Sequence[Completion]) -> float:
        """Mean over the completions' tokens of KL(current; base), exact over the vocabulary, nats, temperature 1."""

        def measure(chosen: Sequence[Completion]) -> Tensor:
            current, _, temperature = self.selected(chosen)
            with self.base():
                return self.head.kl(current, self.selected(chosen)[0], torch.ones_like(temperature))

        found = self.measured(completions, measure)
        return float(found.double().mean()) if len(found) else 0.0

    @torch.no_grad()
    def measured(self, completions: Sequence[Completion], measure: Callable[[Sequence[Completion]], Tensor]) -> Tensor:
        """[B] of the completions' tokens, flat and in order, from what `measure` says of each micro-batch's. Rows that
        do not fit into memory are cut; the ranks of a team measure a share each."""
        lengths = [len(c.token_ids) for c in completions]

        def share() -> Tensor:
            found = torch.zeros(sum(lengths), dtype=self.number)
            parts = found.split(lengths)
            for batch in self.team.own(self.micro_batches(completions)):
                chosen = [completions[i] for i in batch]
                rows = measure(chosen).split([lengths[i] for i in batch])
                for index, row in zip(batch, rows, strict=True):
                    parts[index].copy_(row)
            return found

        found = self.budget.within_memory(share)
        self.team.add_up([found])
        return found

    @contextmanager
    def base(self) -> Iterator[None]:
        """Within: the adapter is off."""
        with self.peft.disable_adapter():
            yield

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Within: the adapter folded into the base and rounded to the type that merged delivery serves."""
        layers = [m for m in self.peft.modules() if isinstance(m, LoraLinear)]
        pristine = [layer.base_layer.weight.data for layer in layers]
        try:
            for layer, weight in zip(layers, pristine, strict=True):
                a, b = layer.lora_A[POLICY].weight.float(), layer.lora_B[POLICY].weight.float()
                update = layer.scaling[POLICY] * (b @ a)
                served = rounded(weight.float() + update, self.served_dtype)
                layer.base_layer.weight.data = served.to(weight.dtype).detach()
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
        changed, ranks = 0.0, []
        for module in self.peft.modules():
            if not isinstance(module, LoraLinear) or POLICY not in module.lora_A:
                continue
            a, b = (side[POLICY].weight.double() for side in (module.lora_A, module.lora_B))
            if not bool(a.isfinite().all() & b.isfinite().all()):
                return {"relative_norm": math.nan}
            squares = torch.linalg.eigvals((b.T @ b) @ (a @ a.T)).real.clamp(min=0) * module.scaling[POLICY] ** 2
            changed += float(squares.sum())
            if squares.max() > 0:
                ranks.append(float(squares.sum() / squares.max()))
        numbers = {"relative_norm": math.sqrt(changed / self._whole)}
        return numbers | ({"stable_rank": sum(ranks) / len(ranks)} if ranks else {})

    @cached_property
    def _whole(self) -> float:
        """|W|^2 over all modules that the policy's adapter changes; they are frozen."""
        layers = (m for m in self.peft.modules() if isinstance(m, LoraLinear) and POLICY in m.lora_A)
        return sum(float(layer.get_base_layer().weight.double().square().sum()) for layer in layers)

    def save_adapter(self, directory: Path) -> None:
        """Write the two files of the policy's PEFT adapter."""
        self.peft.save_pretrained(str(directory), safe_serialization=True, selected_adapters=[POLICY])
        (directory / "README.md").unlink(missing_ok=True)

    def micro_batches(self, completions: Sequence[Completion]) -> list[list[int]]:
        """The same on every rank, and not fewer than there are ranks, where there is enough to do."""
        if self.shares_prompts:
            return micro_batches(completions, self.budget.tokens, self.budget.most, self.team.size)
        lengths = [len(c.prompt_token_ids) + len(c.token_ids) for c in completions]
        return padded_batches(lengths, min(self.budget.tokens, -(-sum(lengths) // self.team.size)))

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
        config, ids, positions = self.decoder.config, layout.ids[None], layout.positions[None]
        attending, too_long = partial(shared_prompts, config), self._too_long(len(layout.ids))
        layers = 1 if too_long else config.num_hidden_layers
        with attending(), recomputed(self.decoder, attending) if too_long else nullcontext():
            found = self.decoder(
                input_ids=ids, position_ids=positions, use_cache=False, layout=layout, kept_layers=layers
            )
        hidden: Tensor = found.last_hidden_state[0].index_select(0, layout.reads)
        return hidden

    def _padded(self, completions: Sequence[Completion]) -> Tensor:
        """[B, hidden] from one row a sequence, by the model's own attention."""
        ids = [torch.tensor(c.prompt_token_ids + c.token_ids) for c in completions]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)[:, :-1].to(self.device)
        rows = [i for i, c in enumerate(completions) for _ in c.token_ids]
        columns = [len(c.prompt_token_ids) - 1 + t for c in completions for t in range(len(c.token_ids))]
        with recomputed(self.decoder) if self._too_long(padded.numel()) else nullcontext():
            hidden: Tensor = self.decoder(input_ids=padded, use_cache=False).last_hidden_state[rows, columns]
        return hidden

    def _too_long(self, tokens: int) -> bool:
        return torch.is_grad_enabled() and self.budget.too_long(tokens)

    def _bytes_a_token(self) -> float:
        """From what two short rows keep for their backward: the difference is what tokens take."""

        def kept(length: int) -> int:
            ids = tuple(token % len(self.head.weight) for token in range(length))
            row = Completion("", "", "", "", ids[:1], ids[1:], (), FinishReason.STOP, 0, "")
            return kept_bytes(lambda: self.selected([row]))

        short, long = PROBE_LENGTHS
        return (kept(long) - kept(short)) / (long - short)
