"""An API process of a test: serves GraphQL over HTTP with the configuration it is given.

Run as `python -m tests.payments.api_child PORT`; the configuration comes as JSON on the standard
input. Risk always says ALLOW: what is tested is what becomes of payments.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import uvicorn

from app.asgi import make_application
from core import configuration, hub, phase
from identity import tokens
from resolvers import guard, throttle
from risk_model import assessment
from risk_model.values import Assessment
from tests.payments.crash_child import unpacked


def _allow_all() -> None:
    real = assessment.assess

    def assess(subjects: Sequence[Any], *rest: Any) -> list[Assessment]:
        return [replace(each, outcome="ALLOW") for each in real(subjects, *rest)]

    assessment.assess = assess  # type: ignore[assignment]


async def _serve(port: int, document: dict[str, Any]) -> None:
    values = unpacked(document)
    configuration.install(values)
    await phase.connect(values.database_url, pool_size=8, application_name="api-child")
    hub.connect(values.redis_url)
    throttle.connect(values.redis_url)
    await tokens.ensure_signing_key()
    application = make_application(connects=False)
    await uvicorn.Server(
        uvicorn.Config(application, "127.0.0.1", port, log_level="error", access_log=False)
    ).serve()
    await guard.finish_running()
    await throttle.close()
    await hub.close()
    await phase.close()


if __name__ == "__main__":
    _allow_all()
    asyncio.run(_serve(int(sys.argv[1]), json.load(sys.stdin)))
