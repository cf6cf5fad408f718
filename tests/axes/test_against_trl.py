"""The same losses in TRL 1.16, on the same tensors. Optional: skipped unless trl can be imported.

TRL's own `_compute_loss` is called with a stand-in for its trainer that only hands out our log-probs. Where TRL differs
from the paper, the row here says how it is called: its `ipo` is the mean form, its `bco_pair` has no delta, its `cispo`
has an absolute cap, and "grpo" with its default `loss_type` would be DAPO's normaliser. Its `exo_pair` keeps epsilon in
float32, so that row agrees to 1e-6 only.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from iterpo.algorithms import resolve
from iterpo.gradient import prepared, token_gradient
from iterpo.gradient_coefficient.advantage import centred, standardised
from iterpo.run_config import RunConfig
from tests.axes.builders import random_batch

pytestmark = pytest.mark.filterwarnings("ignore")
EXACT = 1e-10


class Accelerator:
    """One process."""

    device = torch.device("cpu")
    num_processes = 1
    sync_gradients = False
    gather = gather_for_metrics = staticmethod(lambda x: x)
    reduce = staticmethod(lambda x, reduction: x)


def padded(batch, flat: torch.Tensor, fill: float = 0.0) -> torch.Tensor:
    """[B] -> [S, longest]."""
    wide = torch.full((len(batch.lengths), int(batch.lengths.max())), fill, dtype=flat.dtype)
    wide[batch.sequence, batch.position] = flat
    return wide


def trl_grpo(batch, loss_type: str, **settings) -> torch.Tensor:
    """Minus TRL's gradient by each log-prob."""
    trainer = pytest.importorskip("trl.trainer.grpo_trainer").GRPOTrainer
    leaf = batch.logprobs.clone().requires_grad_()
    mask = padded(batch, torch.ones_like(leaf))
    own = {
        "aux_loss_enabled": False,
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": settings.pop("off_policy_mask_threshold", None),
        "importance_sampling_level": settings.pop("level", "token"),
        "beta": settings.pop("beta", 0.0),
        "epsilon_low": settings.pop("low", 0.2),
        "epsilon_high": settings.pop("high", 0.2),
        "loss_type": loss_type,
        "use_vllm": False,
        "vllm_importance_sampling_correction": False,
        "model": SimpleNamespace(training=True),
        "current_gradient_accumulation_steps": 1,
        "max_completion_length": batch.max_tokens,
        "accelerator": Accelerator(),
        "_entropy_bonus_enabled": False,
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "get_off_policy_mask": trainer.get_off_policy_mask,
        "_get_per_token_logps_and_entropies": lambda *_, **__: (padded(batch, leaf), mask, None),
        "args": SimpleNamespace(
            use_bias_correction_kl=settings.pop("corrected_kl", False),
            delta=None,
            sapo_temperature_pos=1.0,
            sapo_temperature_neg=1.05,
            steps_per_generation=1,
        ),
    }
    ids = mask.long()
    inputs = {
        "prompt_ids": ids,
        "prompt_mask": ids,
        "completion_ids": ids,
        "completion_mask": mask,
        "advantages": settings.pop("advantages"),
        "old_per_token_logps": padded(batch, batch.old),
        "ref_per_token_logps": padded(batch, batch.reference),
        "num_items_in_batch": mask.sum(),
    }
    assert not settings
    loss = trainer._compute_loss(SimpleNamespace(**own), None, inputs)
    return -torch.autograd.grad(loss, leaf)[0]


def per_sequence(batch, advantage: torch.Tensor) -> torch.Tensor:
    return batch.sequence_mean(advantage)


@pytest.mark.parametrize(
    ("name", "run", "trl"),
    [
        ("grpo", {}, {"loss_type": "grpo", "beta": 0.04}),
        ("grpo", {"kl": {"estimator": "ratio_k3"}}, {"loss_type": "grpo", "beta": 0.04, "corrected_kl": True}),
        ("grpo", {"normalizer": {"name": "per_token"}}, {"loss_type": "dapo", "beta": 0.04}),
        ("grpo", {"off_policy_mask": 0.1}, {"loss_type": "grpo", "beta": 0.04, "off_policy_mask_threshold": 0.1}),
        ("dr_grpo", {}, {"loss_type": "dr_grpo"}),
        ("dapo", {"gradient_coefficient": {"overlong_fraction": 0.0}}, {"loss_type": "dapo", "high": 0.28}),
        ("gspo", {}, {"loss_type": "grpo", "level": "sequence", "low": 3e-4, "high": 4e-4}),
        ("cispo", {}, {"loss_type": "cispo", "high": 5.0}),
        ("sapo", {}, {"loss_type": "sapo"}),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_policy_gradients_are_trls(name, run, trl, seed):
    batch, algorithm = random_batch(seed), resolve(RunConfig(algorithm=name, **run))
    advantage = (centred if name == "dr_grpo" else standardised)(batch, batch.reward)
    expected = trl_grpo(batch, advantages=per_sequence(batch, advantage), **trl)
    none = batch.chosen[:0]
    batch = replace(batch, chosen=none, rejected=none, weight=torch.ones(len(batch.lengths), dtype=torch.float64))
    found = token_gradient(algorithm, prepared(algorithm, batch)).gradient
    assert torch.allclose(found, expected, atol=EXACT)
    assert expected.abs().max() > 1e-4


def trl_dpo(batch, loss_types: list[str], beta: float, weights=(1.0,), smoothing: float = 0.0, ld_alpha=None):
    """Minus TRL's gradient by each log-prob; its batch is all chosen answers, then all rejected ones."""
    trainer = pytest.importorskip("trl.trainer.dpo_trainer").DPOTrainer
    order = torch.cat([batch.chosen, batch.rejected])
    leaf = batch.logprobs.clone().requires_grad_()
    mask = padded(batch, torch.ones_like(leaf))[order]
    prompt = torch.zeros(len(order), 1, dtype=mask.dtype)
    logps, reference = padded(batch, leaf)[order], padded(batch, batch.reference)[order]

    def output(log_probs):
        zeros = torch.zeros_like(log_probs)
        return SimpleNamespace(log_probs=log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())

    own = SimpleNamespace(
        model=SimpleNamespace(training=True),
        ref_model=lambda **_: output(reference),
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        accelerator=Accelerator(),
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        ld_alpha=ld_alpha,
        f_divergence_type="reverse_kl",
        loss_types=loss_types,
        loss_weights=list(weights),
        beta=beta,
        label_smoothing=smoothing,
        use_weighting=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    tail = 1.0 if ld_alpha is None else ld_alpha
    shorter = torch.minimum(batch.lengths[batch.chosen], batch.lengths[batch.rejected]).repeat(2)
    beyond = torch.arange(mask.shape[1])[None] >= shorter[:, None]
    summed = (reference * mask * torch.where(beyond, tail, 1.0)).sum(1)
    inputs = {
        "input_ids": torch.cat([prompt, mask], 1).long(),
        "attention_mask": torch.cat([prompt + 1, mask], 1),
        "completion_mask": torch.cat([prompt, mask], 1),
        "ref_chosen_logps": summed[: len(batch.chosen)],
        "ref_rejected_logps": summed[len(batch.chosen) :],
    }
    loss = trainer._compute_loss(own, lambda **_: output(logps), inputs, return_outputs=False)
    return -torch.autograd.grad(loss, leaf)[0]


@pytest.mark.parametrize(
    ("name", "run", "trl"),
    [
        ("dpo", {}, {"loss_types": ["sigmoid"], "beta": 0.1}),
        ("robust_dpo", {}, {"loss_types": ["robust"], "beta": 0.1, "smoothing": 0.1}),
        ("slic", {}, {"loss_types": ["hinge"], "beta": 0.1}),
        ("ipo", {}, {"loss_types": ["ipo"], "beta": 0.1}),
        ("exo", {}, {"loss_types": ["exo_pair"], "beta": 0.1, "smoothing": 1e-3}),
        ("nca", {}, {"loss_types": ["nca_pair"], "beta": 0.01}),
        ("sppo", {}, {"loss_types": ["sppo_hard"], "beta": 1e-3}),
        ("apo_zero", {}, {"loss_types": ["apo_zero"], "beta": 0.1}),
        ("apo_down", {}, {"loss_types": ["apo_down"], "beta": 0.1}),
        ("ln_dpo", {}, {"loss_types": ["sigmoid_norm"], "beta": 5.0}),
        ("ld_dpo", {}, {"loss_types": ["sigmoid"], "beta": 0.1, "ld_alpha": 0.5}),
        ("mpo", {}, {"loss_types": ["sigmoid", "bco_pair", "sft"], "beta": 0.1, "weights": (0.8, 0.2, 1.0)}),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_preference_losses_are_trls(name, run, trl, seed):
    batch, algorithm = random_batch(seed), resolve(RunConfig(algorithm=name, **run))
    expected = trl_dpo(batch, **trl)
    found = token_gradient(algorithm, prepared(algorithm, batch)).gradient
    assert torch.allclose(found, expected, atol=1e-6 if name == "exo" else EXACT, rtol=1e-9)
    assert expected.abs().max() > 1e-4


def test_trls_bco_pair_is_bco_without_its_delta():
    """Negative control, and the difference that the docstring names."""
    batch, algorithm = random_batch(0), resolve(RunConfig(algorithm="bco"))
    found = token_gradient(algorithm, prepared(algorithm, batch)).gradient
    assert not torch.allclose(found, trl_dpo(batch, ["bco_pair"], 0.1), atol=1e-4)
