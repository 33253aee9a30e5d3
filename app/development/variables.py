"""The settings of a run on embedded defaults: what `purser dev` gives to its processes."""

from __future__ import annotations

import socket
from pathlib import Path

from app.development import postgres, valkey
from app.development.home import Home
from app.development.secrets import Secrets
from app.settings import Place

LOOPBACK = "127.0.0.1"


def run_variables(home: Home, place: Place, secrets: Secrets, sockets: Path) -> dict[str, str]:
    """Every `PURSER_` variable of the run's processes; those set outside win over these."""
    simulator_port = _kept_port(home.folder / "simulator-port")
    simulator_url = f"http://{LOOPBACK}:{simulator_port}"
    return {
        "PURSER_HOME": str(home.folder),
        "PURSER_HOST": place.host,
        "PURSER_PORT": str(place.port),
        "PURSER_ENVIRONMENT": "development",
        "PURSER_PUBLIC_URL": local_url(place),
        "PURSER_DATABASE_URL": postgres.url("purser_app", secrets.application_password, sockets),
        "PURSER_OWNER_DATABASE_URL": postgres.url(postgres.OWNER, secrets.owner_password, sockets),
        "PURSER_REDIS_URL": valkey.url(secrets.valkey_password, sockets),
        "PURSER_MASTER_KEY_FILE": str(secrets.master_key),
        "PURSER_BANK_URL": simulator_url,
        "PURSER_BANK_PRIVATE_KEY_FILE": str(secrets.client_private_key),
        "PURSER_BANK_PUBLIC_KEY_FILE": str(secrets.bank_public_key),
        "PURSER_SMS_URL": f"{simulator_url}/sms",
        "PURSER_SMS_KEY_FILE": str(secrets.sms_key),
        "PURSER_RISK_MODEL_DIRECTORY": str(home.risk_models),
        "PURSER_WEBHOOK_LOOPBACK_ADDRESSES": f"{LOOPBACK}:{simulator_port}",
        "PURSER_REPLAY_ALLOWED": "true",
        "PURSER_SIMULATOR_PORT": str(simulator_port),
        "PURSER_SIMULATOR_PUBLIC_URL": simulator_url,
        "PURSER_SIMULATOR_DATABASE": str(home.folder / "simulator.sqlite"),
        "PURSER_SIMULATOR_PRIVATE_KEY_FILE": str(secrets.bank_private_key),
        "PURSER_SIMULATOR_CLIENT_PUBLIC_KEY_FILE": str(secrets.client_public_key),
        "PURSER_SIMULATOR_SMS_KEY_FILE": str(secrets.sms_key),
        "PURSER_SIMULATOR_ADMIN_TOKEN_FILE": str(secrets.admin_token),
    }


def local_url(place: Place) -> str:
    """Where the API answers on this machine."""
    return f"http://{place.host}:{place.port}"


def free(host: str, port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _kept_port(file: Path) -> int:
    """A free port; the same one each time while it is free, because old links name it."""
    if file.exists() and free(LOOPBACK, int(file.read_text())):
        return int(file.read_text())
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = int(probe.getsockname()[1])
    file.write_text(f"{port}\n")
    return port
