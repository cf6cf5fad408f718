"""`Audit`: who changed what, and what became of it: a JSON object a line, in `logs/audit-SERVICE.jsonl` of data_dir.

Every call is recorded that is not known to change nothing, refused ones too. Of an annotation stream the beginning and
the end are: each of its labels is an event with its annotator. No line holds a prompt, an answer or a token. The file
may be rotated at any time: it is opened anew when it was moved away.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from iterpo.errors import IterpoError
from services.auth import OPEN_SERVICES, Identity, caller
from services.calls import Method
from services.logs import told

READING = frozenset(
    {
        "InferenceService/Generate",
        "InferenceService/Sample",
        "InferenceService/Score",
        "InferenceService/GetModel",
        "PolicyService/ListPolicies",
        "PolicyService/WatchPolicies",
        "PolicyService/FetchPolicy",
        "LabelingService/ScoreCompletions",
        "LabelingService/StreamFeedback",
        "LabelingService/ListLabelers",
        "LabelingService/ListAnnotators",
        "LabelingService/GetLabelReport",
        "LearnerService/GetRun",
        "LearnerService/ListRuns",
        "LearnerService/WatchRun",
        "LearnerService/ListAlgorithms",
        "LearnerService/ListTouched",
        "LearnerService/Explain",
        "LearnerService/DescribeRun",
        "LearnerService/GetBatch",
        "LearnerService/ExplainBatch",
    }
)
"""Calls that change nothing. What is not named here is recorded."""


class Audit:
    def __init__(self, path: Path | None) -> None:
        """None: nothing is recorded."""
        self._file: WatchedFileHandler | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = WatchedFileHandler(path, encoding="utf-8", delay=True)

    def record(self, who: Identity | None, what: str, outcome: str, **more: Any) -> None:
        if self._file is None:
            return
        line: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "what": what}
        if who is not None:
            line |= {"role": who.role, "name": who.name, "token": who.key}
        line |= {"outcome": outcome, **more}
        text = json.dumps(line, ensure_ascii=False)
        self._file.emit(logging.LogRecord("audit", logging.INFO, "", 0, text, None, None))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    @staticmethod
    def may_change(method: Method) -> bool:
        """Whether the method may change something: such calls are recorded."""
        return method.service not in OPEN_SERVICES and method.short not in READING

    @asynccontextmanager
    async def guard(self, method: Method, context: Any) -> AsyncIterator[None]:
        if self._file is None or not self.may_change(method):
            yield
            return
        began, peer, outcome = time.monotonic(), context.peer(), "CANCELLED"
        try:
            yield
            outcome = "OK"
        except IterpoError as error:
            outcome = error.reason
            raise
        except Exception as error:
            outcome = type(error).__name__
            raise
        finally:
            seconds = round(time.monotonic() - began, 3)
            self.record(caller(), method.short, outcome, peer=peer, seconds=seconds, **told())
