"""Settings that a way of delivery would leave without effect are refused when the service starts."""

from __future__ import annotations

import pytest

from iterpo.config import InferenceSettings, Settings
from iterpo.errors import InvalidConfig
from services.inference.__main__ import check_delivery


def settings(**inference: object) -> Settings:
    return Settings(inference=InferenceSettings(**inference))


@pytest.mark.parametrize("wish", [{"run_slots": 2}, {"bake_seconds": 10.0}])
def test_merged_delivery_refuses_what_only_slots_can_do(wish):
    with pytest.raises(InvalidConfig, match='delivery = "adapter"'):
        check_delivery(settings(**wish), "merged")
    check_delivery(settings(**wish), "adapter")


def test_a_service_does_not_follow_itself():
    with pytest.raises(InvalidConfig, match="follow itself"):
        check_delivery(settings(address="127.0.0.1:50051", follow="127.0.0.1:50051"), "merged")
    check_delivery(settings(address="127.0.0.1:50051", follow="127.0.0.1:50052"), "merged")
