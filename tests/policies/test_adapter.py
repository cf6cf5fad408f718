"""What cannot be served is refused before an engine sees it; what can is folded into the base by hand-checked sums."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from iterpo.errors import PolicyRejected
from iterpo.policies import adapter, merge
from tests.policies.builders import write_adapter


def files(path, **config) -> dict[str, bytes]:
    write_adapter(path, **config)
    return {p.name: p.read_bytes() for p in path.iterdir()}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"b": 0.0}, "ALL_ZERO"),
        ({"b": float("nan")}, "NON_FINITE"),
        ({"rank": 32}, "UNSERVABLE_ADAPTER"),
        ({"use_dora": True}, "UNSERVABLE_ADAPTER"),
        ({"modules_to_save": ["lm_head"]}, "UNSERVABLE_ADAPTER"),
        ({"peft_type": "PROMPT_TUNING"}, "UNSERVABLE_ADAPTER"),
    ],
)
def test_each_unservable_adapter_has_its_reason(tmp_path, config, reason):
    with pytest.raises(PolicyRejected) as caught:
        adapter.parse(files(tmp_path, **config), max_rank=16)
    assert caught.value.reason == reason
    assert caught.value.fix


def test_garbage_is_not_an_adapter(tmp_path):
    broken = files(tmp_path) | {"adapter_model.safetensors": b"garbage"}
    with pytest.raises(PolicyRejected, match="cannot be read"):
        adapter.parse(broken, max_rank=16)


def test_the_merge_by_hand(tmp_path):
    """A is 2 x 3 of ones, B 4 x 2 of 0.25: B A is 0.5 everywhere, times alpha / r = 4 / 2: every weight grows by 1."""
    base = tmp_path / "base"
    base.mkdir()
    weights = {"model.layer.weight": torch.arange(12.0).reshape(4, 3), "model.other.weight": torch.ones(2)}
    save_file(weights, base / "model.safetensors")
    folder = tmp_path / "adapter"
    folder.mkdir()
    made = adapter.parse(files(folder, b=0.25), 16)
    merge.check_fits(base, made)
    merged = dict(merge.merged_weights(base, made))
    assert torch.equal(merged["model.layer.weight"], weights["model.layer.weight"] + 1)
    assert torch.equal(merged["model.other.weight"], weights["model.other.weight"])
    assert all(torch.equal(weight, weights[name]) for name, weight in merge.merged_weights(base))


@pytest.mark.parametrize("tensor", [{"model.else.weight": torch.ones(4, 3)}, {"model.layer.weight": torch.ones(4, 5)}])
def test_an_adapter_of_another_architecture_does_not_merge(tmp_path, tensor):
    base, folder = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    folder.mkdir()
    save_file(tensor, base / "model.safetensors")
    with pytest.raises(PolicyRejected, match="another base"):
        merge.check_fits(base, adapter.parse(files(folder), 16))
