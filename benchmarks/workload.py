"""What the engine is asked in both forms: the demo's prompts, 64 answers of 48 tokens at once."""

from __future__ import annotations

from iterpo.prompts import read
from iterpo.run_data import demo_file
from iterpo.types import Prompt, SamplingSettings

PROMPTS, SAMPLES, ROUNDS = 8, 8, 5
SETTINGS = SamplingSettings(temperature=1.0, max_tokens=48, seed=1)


def prompts() -> list[Prompt]:
    return [e.prompt for e in read(demo_file("prompts.jsonl"))[:PROMPTS]]
