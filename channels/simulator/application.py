"""The simulator put together: a Starlette application, a SQLite file, a loop of deliveries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from channels.simulator import admin, api, callbacks, cashier, merchant, phone, store
from channels.simulator.callbacks import Bank
from channels.simulator.faults import FaultOperation
from channels.simulator.settings import SimulatorSettings


def application(settings: SimulatorSettings) -> Starlette:
    """A simulated bank, phone and merchant on the file that the settings name."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        connection = store.connect(settings.database_path)
        async with httpx2.AsyncClient(trust_env=False, follow_redirects=False) as client:
            bank = app.state.bank = Bank(settings, connection, client)
            deliveries = asyncio.create_task(callbacks.run(bank))
            try:
                yield
            finally:
                deliveries.cancel()
                with suppress(asyncio.CancelledError):
                    await deliveries
                connection.close()

    return Starlette(routes=_routes(), lifespan=lifespan)


def serve(settings: SimulatorSettings, host: str, port: int) -> None:
    """Run until SIGTERM or SIGINT. Messages to phones appear on the standard output."""
    phone.log_messages()
    config = uvicorn.Config(
        application(settings),
        host=host,
        port=port,
        access_log=False,
        log_level="warning",
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=2,
    )
    uvicorn.Server(config).run()


async def healthy(_: Request) -> Response:
    """GET: 200 as soon as the simulator takes requests."""
    return JSONResponse({"status": "ok"})


def _routes() -> list[Route]:
    """A profile of another kind of provider would add its own routes to these."""
    pay_in = api.endpoint(FaultOperation.PAY_IN, api.pay_in)
    pay_out = api.endpoint(FaultOperation.PAY_OUT, api.pay_out)
    query = api.endpoint(FaultOperation.QUERY, api.query)
    close = api.endpoint(FaultOperation.CLOSE, api.close)
    return [
        Route("/health/live", healthy),
        Route("/v1/payments", pay_in, methods=["POST"]),
        Route("/v1/payouts", pay_out, methods=["POST"]),
        Route("/v1/instructions/{number}", query, methods=["GET"]),
        Route("/v1/instructions/{number}/close", close, methods=["POST"]),
        Route("/v1/statements/{day}", api.statement, methods=["GET"]),
        Route("/cashier/{cashier_id}", cashier.show, methods=["GET"]),
        Route("/cashier/{cashier_id}", cashier.act, methods=["POST"]),
        Route("/sms", phone.receive, methods=["POST"]),
        Route("/phone/{destination}", phone.show, methods=["GET"]),
        Route("/merchant/webhooks", merchant.receive, methods=["POST"]),
        Route("/merchant/webhooks", merchant.show, methods=["GET"]),
        Route("/admin/faults", admin.guarded(admin.add_fault), methods=["POST"]),
        Route("/admin/faults", admin.guarded(admin.show_faults), methods=["GET"]),
        Route("/admin/faults", admin.guarded(admin.clear_faults), methods=["DELETE"]),
        Route("/admin/ledger", admin.guarded(admin.show_ledger), methods=["GET"]),
        Route("/admin/callbacks", admin.guarded(admin.show_callbacks), methods=["GET"]),
        Route("/admin/webhook-secret", admin.guarded(admin.add_webhook_secret), methods=["POST"]),
    ]
