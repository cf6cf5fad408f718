"""A reward model as a labeler: any transformers sequence-classification checkpoint with one output.

A directory holds a whole model (config.json and safetensors), a PEFT adapter whose adapter_config.json names its base
model (`iterpo labels train-reward-model` writes one), or a head for the first layers of a base model, which its
reward_head.safetensors names (`iterpo labels train-reward-head`). Only safetensors are read, no remote code is run.
torch and transformers are imported when the model is loaded, not before.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iterpo.errors import CorruptModel, InvalidConfig
from iterpo.labeling.labeler import Item
from iterpo.types import Completion, Prompt

if TYPE_CHECKING:
    import torch

ADAPTER_CONFIG = "adapter_config.json"
HEAD_FILE = "reward_head.safetensors"
"""`weight` [H]; its metadata name the `base` model's directory, how many `layers` of it, and in what `dtype`."""


@dataclass(frozen=True, slots=True)
class RewardModelSettings:
    batch_size: int = 16
    max_tokens: int = 1024
    """Of prompt and answer together; what is longer loses its beginning."""
    base: str = ""
    """Base model's directory of an adapter; empty: the one that its adapter_config.json names."""
    dtype: str = ""
    """Empty: float32, or what a head was trained on."""


class RewardModel:
    """Loaded at the first score, or by `load`. Rewards are the head's raw output: comparable within a prompt."""

    kind = "reward_model"

    def __init__(self, name: str, path: Path, **options: Any) -> None:
        """Raises InvalidConfig for unknown options, CorruptModel when the directory cannot be a reward model."""
        self.name = name
        self.path = path
        self.settings = _settings(name, options)
        self.description = f"Reward model in {path.name}"
        self._base = _check_directory(path, self.settings.base)
        self._loaded: tuple[Any, Any] | None = None
        self._lock = threading.Lock()

    @property
    def batch_size(self) -> int:
        return self.settings.batch_size

    def load(self) -> None:
        """Read the weights now (seconds). Raises CorruptModel."""
        self._model_and_tokenizer()

    def score(self, prompt: Prompt, completion: Completion) -> float:
        return self.score_batch([(prompt, completion)])[0]

    def score_batch(self, items: Sequence[Item]) -> list[float]:
        """One reward an item, in order, from padded batches of at most `batch_size`."""
        import torch

        model, tokenizer = self._model_and_tokenizer()
        rewards: list[float] = []
        with torch.inference_mode():
            for start in range(0, len(items), self.batch_size):
                batch = encode(tokenizer, items[start : start + self.batch_size], self.settings.max_tokens)
                rewards += model(**batch.to(model.device)).logits[:, 0].float().tolist()
        return rewards

    def _model_and_tokenizer(self) -> tuple[Any, Any]:
        with self._lock:
            if self._loaded is None:
                self._loaded = _load(self.path, self._base, self.settings.dtype)
            return self._loaded


def encode(tokenizer: Any, items: Sequence[Item], max_tokens: int) -> Any:
    """Token ids and attention mask, [len(items), longest], padded right; cut on the left, where the prompt is.

    With a chat template the whole conversation is rendered, without one prompt and answer go in as a text pair.
    """
    options = {"padding": True, "truncation": True, "max_length": max_tokens, "return_tensors": "pt"}
    if tokenizer.chat_template is not None:
        texts = [tokenizer.apply_chat_template(_messages(*item), tokenize=False) for item in items]
        return tokenizer(texts, add_special_tokens=False, **options)
    return tokenizer([prompt.text for prompt, _ in items], [answer.text for _, answer in items], **options)


def load_tokenizer(path: Path) -> Any:
    """Padding right, truncation left; without a pad token of its own, the end-of-sequence token pads."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(path))
    tokenizer.padding_side, tokenizer.truncation_side = "right", "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def layer_count(path: Path) -> int:
    from transformers import AutoConfig

    return int(AutoConfig.from_pretrained(str(path)).num_hidden_layers)


def classifier(path: Path, dtype: torch.dtype, layers: int = 0) -> tuple[Any, set[str]]:
    """A one-output sequence classifier from a directory, and the names of weights that the directory did not have.
    `layers`: only so many of its first blocks; 0: all."""
    from transformers import AutoConfig, AutoModelForSequenceClassification
    from transformers.utils import logging

    config = AutoConfig.from_pretrained(str(path), num_labels=1)
    if layers:
        config.num_hidden_layers = layers
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:layers]

    verbosity = logging.get_verbosity()
    # Missing weights are returned, and refused or expected by the caller: a table of them on the terminal only alarms.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            str(path), config=config, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()
    return model, set(report["missing_keys"])


def check_nothing_missing(base: Path, missing: set[str]) -> None:
    """Raises CorruptModel when weights other than the score head's were not there: they would be random."""
    lacking = sorted(name for name in missing if not name.startswith("score."))
    if lacking:
        raise CorruptModel(
            f"The base model in {base} lacks {len(lacking)} weights, {lacking[0]} among them.",
            "Use the base model that the head was trained on, whole.",
        )


def score_in_float32(head: Any) -> None:
    """bf16 keeps three digits: under autocast the rewards of a close pair would tie."""
    import torch

    linear = head.forward

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            scores: torch.Tensor = linear(hidden.float())
        return scores

    head.forward = forward


def _load(path: Path, base: Path | None, dtype_name: str) -> tuple[Any, Any]:
    import torch

    if base is not None and (path / HEAD_FILE).is_file():
        tokenizer, model = load_tokenizer(base), _with_head(path / HEAD_FILE, base, dtype_name)
    else:
        tokenizer, model = load_tokenizer(path), _whole(path, base, getattr(torch, dtype_name or "float32"))
    model.config.pad_token_id = tokenizer.pad_token_id
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval(), tokenizer


def _with_head(head: Path, base: Path, dtype_name: str) -> Any:
    import torch
    from safetensors import safe_open

    with safe_open(head, framework="pt") as file:
        weight, metadata = file.get_tensor("weight"), file.metadata()
    model, missing = classifier(base, getattr(torch, dtype_name or metadata["dtype"]), int(metadata["layers"]))
    check_nothing_missing(base, missing)
    if (width := model.score.weight.shape[-1]) != len(weight):
        raise CorruptModel(
            f"The head in {head.parent} is for hidden states of {len(weight)}, those of {base} have {width}.",
            "Set options.base of the labeler to the base model that it was trained on.",
        )
    model.score.weight.data = weight[None]
    score_in_float32(model.score)
    return model


def _whole(path: Path, base: Path | None, dtype: torch.dtype) -> Any:
    """A whole model, or an adapter merged into its base."""
    model, missing = classifier(base or path, dtype)
    if base is None and missing:
        raise CorruptModel(
            f"The reward model in {path} lacks the weights {', '.join(sorted(missing)[:3])}.",
            "Use a checkpoint that was trained with a one-output classification head.",
            "NOT_A_REWARD_MODEL",
        )
    if base is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(path)).merge_and_unload()
    return model


def _check_directory(path: Path, base_option: str) -> Path | None:
    """The base model's directory of an adapter or a head, None for a whole model. Raises CorruptModel."""
    if not any(path.glob("*.safetensors")):
        raise CorruptModel(
            f"There are no safetensors in {path}.", "Name the directory of a reward model saved as safetensors."
        )
    if (path / HEAD_FILE).is_file():
        named = _head_base(path / HEAD_FILE)
    elif (path / ADAPTER_CONFIG).is_file():
        named = str(_json(path / ADAPTER_CONFIG).get("base_model_name_or_path", ""))
    else:
        _check_outputs(path)
        return None
    base = Path(base_option or named)
    if not (base / "config.json").is_file():
        raise CorruptModel(
            f"The reward model in {path} belongs to the base model {base}, which is not there.",
            "Set options.base of the labeler to the base model's directory.",
        )
    return base


def _head_base(head: Path) -> str:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(head, framework="np") as file:
            return str(file.metadata()["base"])
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise CorruptModel(f"{head} cannot be read: {error}.", "Train the head again.") from error


def _check_outputs(path: Path) -> None:
    config = _json(path / "config.json")
    outputs = len(config.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"}))
    if outputs != 1:
        raise CorruptModel(
            f"The model in {path} has {outputs} outputs; a reward model has one.",
            "Use a sequence-classification checkpoint with num_labels = 1.",
            "NOT_A_REWARD_MODEL",
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptModel(f"{path} cannot be read: {error}.", "Copy the model's directory again, whole.") from error
    if not isinstance(content, dict):
        raise CorruptModel(f"{path} is not a JSON object.", "Copy the model's directory again, whole.")
    return content


def _settings(name: str, options: dict[str, Any]) -> RewardModelSettings:
    try:
        settings = RewardModelSettings(**options)
    except TypeError as error:
        raise InvalidConfig(
            f"[labelers.{name}] has an option that a reward model does not take: {error}.",
            "Its options are batch_size, max_tokens, base and dtype.",
        ) from error
    if (
        settings.dtype not in ("", "float32", "bfloat16", "float16")
        or settings.batch_size < 1
        or settings.max_tokens < 1
    ):
        raise InvalidConfig(
            f"[labelers.{name}] has options out of range.",
            "dtype is float32, bfloat16 or float16; batch_size and max_tokens are at least 1.",
        )
    return settings


def _messages(prompt: Prompt, completion: Completion) -> list[dict[str, str]]:
    asked = [{"role": message.role, "content": message.content} for message in prompt.messages]
    return [*asked, {"role": "assistant", "content": completion.text}]
