"""The processes that stay up: the API's server, the workers, the simulator."""

from __future__ import annotations

from typing import Literal

from app import process, settings
from app.settings import SimulatorSettingsSource

GRACE_SECONDS = 8
KEEP_ALIVE_SECONDS = 60
MESSAGE_SIZE_MAX = 64 * 1024


def run() -> None:
    """Serve the API until SIGTERM; requests in flight are answered first."""
    import uvicorn

    from resolvers import documents

    read = process.prepare()
    try:
        documents.load(read.documents_directory)
    except documents.DocumentsInvalid as error:
        raise settings.SettingsInvalid(str(error)) from None
    config = uvicorn.Config(
        "app.asgi:application",
        host=read.host,
        port=read.port,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=MESSAGE_SIZE_MAX,
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        lifespan="on",
    )
    uvicorn.Server(config).run()


def run_worker(kind: Literal["dispatch", "short", "long"]) -> int:
    """Run one worker until SIGTERM; its exit code."""
    from workers.serve import serve

    process.prepare()
    return serve(kind)


def run_simulator() -> None:
    """Run the simulator until SIGTERM; its own keys, its own books."""
    from channels.simulator import SimulatorSettings, serve

    read = settings.read(SimulatorSettingsSource)
    serve(
        SimulatorSettings(
            database_path=read.database,
            public_url=read.public_url,
            bank_private_key=settings.private_key(
                read.private_key_file, "SIMULATOR_PRIVATE_KEY_FILE"
            ),
            client_public_key=settings.public_key(
                read.client_public_key_file, "SIMULATOR_CLIENT_PUBLIC_KEY_FILE"
            ),
            sms_key=settings.shared_key(read.sms_key_file, "SIMULATOR_SMS_KEY_FILE"),
            admin_token=settings.content(
                read.admin_token_file, "SIMULATOR_ADMIN_TOKEN_FILE"
            ).decode(),
            time_factor=read.time_factor,
        ),
        "127.0.0.1",
        read.port,
    )
