"""`python -m tests.page.screenshots`: pictures of the pages into docs/screenshots/, from texts as people label them."""

from __future__ import annotations

import io
import random
import tempfile
import uuid
from pathlib import Path
from typing import Any

from PIL import Image

from iterpo.clients.channel import connect
from iterpo.clients.labeling import LabelingClient
from iterpo.types import Outcome
from tests.page.browser import Person, chromium
from tests.page.page_process import PageService, page_service
from tests.services.labeling_process import ROOT

FOLDER = ROOT / "docs" / "screenshots"
WINDOW = {"width": 1120, "height": 780}
PHONE = {"width": 360, "height": 740}
MOST_BYTES = 150_000

PROMPT = "My sourdough comes out flat and dense. The starter doubles in about six hours. What should I change first?"
ONE = """\
Your starter is healthy, so look at **fermentation and shaping** first.

1. **Let the dough rise longer.** At 20 °C bulk fermentation takes 8 to 10 hours. Stop when it has grown by half, \
jiggles, and shows bubbles at the edge.
2. **Shape it tighter.** A loose loaf spreads. Round it, wait 20 minutes, then shape it again.
3. **Bake it hot and covered**: 250 °C for 20 minutes with the lid on, then 20 minutes without.

Change *one* thing at a time; start with the longer rise. If the crumb is gummy with a few large holes, it was \
under-fermented, and this is the cure.
"""
OTHER = """\
Your starter is healthy, so look at **flour and water** first.

1. **Use less water.** Start with 65 % hydration, and add more when you know the flour.
2. **Use strong flour.** Bread flour with 12 % protein or more holds the gas; cake flour does not.
3. **Bake it hot and covered**: 250 °C for 20 minutes with the lid on, then 20 minutes without.

Change *everything* at once; you save time. There is more on [this page](https://bread.example/flat-loaves).
"""
ACCURACY = {"amira": 0.93, "benedikt": 0.88, "chiara": 0.84, "dmitri": 0.8, "eve": 0.5}
"""Eve chooses at random."""
QUALITY = {1: 0.0, 2: 0.5, 3: 0.9, 4: 1.3}
"""Log-odds of the simulated policies."""
ITEMS = 160


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with chromium() as browser, tempfile.TemporaryDirectory() as directory:
        with page_service(Path(directory) / "annotate", 'guideline = "care"') as service:
            service.record([(PROMPT, ONE, OTHER)])
            _annotators_page(browser, service)
        with page_service(Path(directory) / "lead", "required_labels = 3.0") as service:
            _label(service)
            _leads_page(browser, service)


def _annotators_page(browser: Any, service: PageService) -> None:
    ann = Person.at(browser, service.address, viewport=WINDOW, color_scheme="light")
    ann.sign_in("amira")
    ann.answers()
    _shoot(ann, "annotate-light")
    ann.press("d")
    _shoot(ann, "annotate-diff")
    ann.press("d", "?")
    _shoot(ann, "annotate-help")
    for name, looks in {
        "annotate-dark": {"viewport": WINDOW, "color_scheme": "dark"},
        "annotate-phone": {
            "viewport": PHONE,
            "color_scheme": "light",
            "device_scale_factor": 2,
            "is_mobile": True,
            "has_touch": True,
        },
    }.items():
        again = Person.at(browser, service.address, **looks)
        again.sign_in("amira")
        again.answers()
        _shoot(again, name)


def _label(service: PageService) -> None:
    """Simulated people label pairs of four policies' answers; the later the policy, the better."""
    rng = random.Random(1)
    for number in range(ITEMS):
        worse, better = sorted(rng.sample(list(QUALITY), 2))
        right = rng.random() < 1 / (1 + 2.718 ** (QUALITY[worse] - QUALITY[better]))
        texts = ("good", "bad") if right else ("bad", "good")
        service.record([(f"Question {number}?", *(f"A {text} answer." for text in texts))], (better, worse))
    with connect(f"127.0.0.1:{service.grpc}") as channel:
        client = LabelingClient(channel)
        waiting = set(ACCURACY)
        while waiting:
            name = rng.choice(sorted(waiting))
            leases, _ = client.lease(name)
            if not leases:
                waiting.discard(name)
                continue
            first_is_good = leases[0].task.first.text.startswith("A good")
            shown_first_is_good = first_is_good is not leases[0].swapped
            says_first = shown_first_is_good is (rng.random() < ACCURACY[name])
            outcome = Outcome.TIE if rng.random() < 0.06 else Outcome.FIRST if says_first else Outcome.SECOND
            seconds = rng.lognormvariate(2.4, 0.4) * (0.2 if name == "eve" else 1)
            client.submit(leases[0], outcome, duration_seconds=seconds, request_id=uuid.uuid4().hex)


def _leads_page(browser: Any, service: PageService) -> None:
    lead = Person.at(browser, service.address, viewport={"width": 1440, "height": 1180}, color_scheme="light")
    lead.sign_in("lea")
    lead.page.goto(f"{service.address}/lead")
    lead.page.wait_for_selector("tr[data-annotator=eve]")
    lead.page.wait_for_timeout(5_000)
    _shoot(lead, "lead")


def _shoot(person: Person, name: str) -> None:
    path = FOLDER / f"{name}.png"
    picture = Image.open(io.BytesIO(person.page.screenshot()))
    # Few colours are enough for text, and Chromium packs loosely.
    picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size < MOST_BYTES, f"{path} has {path.stat().st_size} bytes"


if __name__ == "__main__":
    main()
