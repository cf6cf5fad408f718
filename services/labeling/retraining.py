"""Trains the label budget's reward model from people's labels as they come.

In a process of its own, the very command that a user would call (`iterpo labels train-reward-head`): training takes all
cores for seconds to minutes, and labels must be acknowledged meanwhile. It reads the labels over StreamFeedback.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
from pathlib import Path

from iterpo.config import BudgetSettings
from iterpo.errors import IterpoError
from iterpo.labeling.budget import Budget
from iterpo.labeling.reward_directory import METRICS_FILE
from iterpo.store.database import FeedbackDatabase
from iterpo.store.labels import people_labels

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
KEPT = 2
"""Trained models that stay on the disk."""
MOST_SECONDS = 3600.0


async def retrain(database: FeedbackDatabase, budget: Budget, settings: BudgetSettings, config: Path | None) -> None:
    """Until it is cancelled. `config` is the server's own iterpo.toml."""
    trained_at = _newest(budget.directory)
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            labels = await asyncio.wrap_future(database.read(people_labels))
        except IterpoError as error:  # a full or busy disk: counted again at the next look
            logger.warning("people's labels could not be counted: %s", error)
            continue
        newest = _newest(budget.directory)
        whole = (budget.directory / f"{newest:08d}" / METRICS_FILE).is_file()
        if newest > trained_at and whole:  # another server on the same database trained it
            trained_at = newest
            await asyncio.to_thread(budget.adopt_newest)
        due = settings.retrain_labels if trained_at else settings.min_labels
        if labels - trained_at < due or not database.on_duty():
            continue
        trained_at = labels
        try:
            if await _train(budget.directory / f"{labels:08d}", settings, config):
                await asyncio.to_thread(budget.adopt_newest)
                _tidy(budget)
        except Exception:  # whatever training or loading raises, the next labels are another chance
            logger.exception("the reward model could not be trained or loaded")


async def _train(out: Path, settings: BudgetSettings, config: Path | None) -> bool:
    way = "train-reward-head" if settings.method == "head" else "train-reward-model"
    command = [sys.executable, "-m", "iterpo.cli.main", "labels", way, "--out", str(out), "--json", "--from", "people"]
    command += ["--max-pairs", str(settings.max_pairs)]
    if settings.method == "lora":
        command += ["--epochs", str(settings.epochs), "--learning-rate", str(settings.learning_rate)]
        command += ["--heldout-share", "0.2"]
    command += ["--config", str(config)] if config else []
    logger.info("training the reward model %s", out.name)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    try:
        answer, complaint = await asyncio.wait_for(process.communicate(), MOST_SECONDS)
    except (TimeoutError, asyncio.CancelledError) as ended:
        process.kill()
        await process.wait()
        if isinstance(ended, asyncio.CancelledError):
            raise
        logger.warning("the reward model's training took longer than %g s and was ended", MOST_SECONDS)
        return False
    if process.returncode:
        logger.warning("the reward model could not be trained: %s", complaint.decode(errors="replace").strip()[-500:])
        return False
    logger.info("trained the reward model %s: %s", out.name, answer.decode(errors="replace").strip())
    return True


def _newest(directory: Path) -> int:
    """The number of labels that the newest model was trained on."""
    return max((int(path.name) for path in directory.glob("[0-9]*") if path.name.isdecimal()), default=0)


def _tidy(budget: Budget) -> None:
    """The model in use stays, however old."""
    for old in sorted(budget.directory.glob("[0-9]*"))[:-KEPT]:
        if old != budget.in_use:
            shutil.rmtree(old, ignore_errors=True)
