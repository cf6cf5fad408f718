"""The pages' composition root: the two desks, the tokens, and what a browser is allowed."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware

from iterpo.labeling.leads import LeadDesk
from iterpo.labeling.people import PeopleDesk, Receipt
from iterpo.types import Outcome
from services.audit import Audit
from services.labeling.page.annotator_api import AnnotatorApi, OnReceipt
from services.labeling.page.doorman import Doorman
from services.labeling.page.files import file_routes
from services.labeling.page.lead_api import LeadApi
from services.labeling.page.recorded import Recorded
from services.labeling.page.run_api import Learner, Policies, RunApi
from services.labeling.page.same_origin import SameOrigin
from services.labeling.page.sessions import Sessions
from services.tokens import Tokens


def _uncounted(_method: str, _presented: Outcome, _receipt: Receipt) -> None:
    """For whoever keeps no metrics."""


def page_app(
    people: PeopleDesk,
    leads: LeadDesk,
    tokens: Tokens,
    key: bytes,
    secure_cookies: bool,
    on_receipt: OnReceipt = _uncounted,
    learner: Learner | None = None,
    policies: Policies | None = None,
    audit: Audit | None = None,
) -> Starlette:
    """`tokens` without any: whoever reaches the address signs in with a name alone, and only loopback names are
    answered. `key`: what signs cookies. `secure_cookies`: served over TLS. `learner` and `policies`: whom the run page
    asks; without them it has no data."""
    doorman = Doorman(Sessions(tokens, key, people.database.clock), secure_cookies)
    annotators, leading = AnnotatorApi(people, leads, doorman, on_receipt), LeadApi(leads, doorman)
    routes = [*doorman.routes(), *annotators.routes(), *leading.routes(), *file_routes()]
    if learner is not None and policies is not None:
        routes += RunApi(learner, policies, doorman).routes()
    guarded = Middleware(SameOrigin, loopback_names_only=tokens.open_to_all)
    return Starlette(routes=routes, middleware=[Middleware(Recorded, audit=audit or Audit(None)), guarded])
