"""The settings of a process: the only place where the environment is read.

Each is a variable `PURSER_<NAME>`, or a line of the file `environment` in `PURSER_HOME`, which a
running development stack keeps there. A missing or malformed one stops the start with one line that
names the variable and never shows a secret.
"""

from __future__ import annotations

import base64
import binascii
import os
import urllib.parse
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from core.configuration import Configuration

PREFIX = "PURSER_"
SIMULATOR_PREFIX = "PURSER_SIMULATOR_"
TEST_PREFIX = "PURSER_TEST_"
PROBLEMS_SHOWN_MAX = 3
MASTER_KEY_SIZE = 32
SMS_KEY_SIZE_MIN = 16


class SettingsInvalid(Exception):
    """A setting is missing or wrong; the text is the one line to show."""


def _database_url(value: str) -> str:
    parts = urllib.parse.urlsplit(value)
    if parts.scheme not in ("postgresql", "postgres") or not parts.path.strip("/"):
        raise ValueError("must look like postgresql://role:password@host:5432/database")
    return value


def _redis_url(value: str) -> str:
    if urllib.parse.urlsplit(value).scheme not in ("redis", "rediss", "unix"):
        raise ValueError("must look like redis://:password@host:6379/0 (or rediss:, or unix:)")
    return value


def _http_url(value: str) -> str:
    parts = urllib.parse.urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("must be an http or https URL without a query")
    return value.rstrip("/")


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


DatabaseUrl = Annotated[str, AfterValidator(_database_url)]
RedisUrl = Annotated[str, AfterValidator(_redis_url)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
Addresses = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class Place(BaseSettings):
    """What every command reads: where the stack keeps its data, and where the API listens."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", env_ignore_empty=True)

    home: Path = Field(Path(".purser"), description="Folder of the development stack.")
    host: str = Field("127.0.0.1", description="Address that the API listens on.")
    port: int = Field(8080, ge=1, le=65_535, description="Port that the API listens on.")


class Settings(Place):
    """What the API and the workers read."""

    environment: Literal["development", "sandbox", "live"] = Field(
        description="`development` serves the explorer; `live` refuses everything made for tests."
    )
    public_url: HttpUrl = Field(description="URL under which clients reach the API.")
    database_url: DatabaseUrl = Field(
        repr=False, description="PostgreSQL as the application's role `purser_app`."
    )
    redis_url: RedisUrl = Field(repr=False, description="Valkey or Redis, with `noeviction`.")
    pool_size: int = Field(
        10, ge=1, le=500, description="Database connections of a process, at most."
    )
    master_key: str | None = Field(
        None, repr=False, description="32 bytes in base64 that seal secrets at rest."
    )
    master_key_file: Path | None = Field(None, description="File with the master key instead.")
    token_issuer: str | None = Field(
        None, description="`iss` of access tokens (default: public URL)."
    )
    token_audience: str = Field("purser", min_length=1, description="`aud` of access tokens.")
    bank_url: HttpUrl = Field(description="URL of the bank channel.")
    bank_private_key_file: Path = Field(description="Our Ed25519 key for the bank, PEM.")
    bank_public_key_file: Path = Field(description="The bank's Ed25519 key, PEM.")
    sms_url: HttpUrl = Field(description="URL that takes text messages and e-mails.")
    sms_key_file: Path = Field(description="File with the key shared with that provider.")
    risk_model_directory: Path = Field(description="Folder of the trained risk models.")
    documents_directory: Path | None = Field(
        None, description="Folder of trusted documents: `*.graphql`, and manifests `*.json`."
    )
    small_amount_limit_minor: int = Field(
        200_00, ge=0, description="Largest payment without a password, in minor units."
    )
    small_amount_daily_limit_minor: int = Field(
        1_000_00, ge=0, description="Largest sum of such payments in a day, in minor units."
    )
    callback_confirm_over_minor: int = Field(
        1_000_000_00,
        ge=0,
        description="Above this amount in minor units a callback is confirmed by a query.",
    )
    order_expiry_seconds: int = Field(
        1_800, ge=60, description="Life of an order that nobody pays."
    )
    challenge_seconds: int = Field(300, ge=30, description="Time to answer a risk challenge.")
    review_seconds: int = Field(86_400, ge=60, description="Time for an operator to review.")
    sweep_interval_seconds: float = Field(
        1.0, gt=0, description="How often overdue work is looked for."
    )
    dispatch_interval_seconds: float = Field(
        0.05, gt=0, description="How often the outbox is looked at, unless woken."
    )
    webhook_loopback_addresses: Addresses = Field(
        (), description="`127.0.0.1:PORT` that webhooks may go to; refused in live."
    )
    replay_allowed: bool = Field(
        False, description="Whether recorded input may be replayed; refused in live."
    )
    crash_point: str = Field("", description="Where to die; for tests, refused in live.")

    @model_validator(mode="after")
    def _nothing_for_tests_in_live(self) -> Self:
        if self.environment != "live":
            return self
        for name in ("webhook_loopback_addresses", "replay_allowed", "crash_point"):
            if getattr(self, name):
                raise _named(name, "is refused in a live environment")
        if not self.public_url.startswith("https://"):
            raise _named("public_url", "must be https in a live environment")
        return self

    def configuration(self) -> Configuration:
        """The values as the packages take them. Raises `SettingsInvalid` for a file or a key."""
        return Configuration(
            environment=self.environment,
            public_url=self.public_url,
            database_url=self.database_url,
            redis_url=self.redis_url,
            pool_size=self.pool_size,
            master_key=self._master_key(),
            token_issuer=self.token_issuer or self.public_url,
            token_audience=self.token_audience,
            bank_url=self.bank_url,
            bank_private_key=private_key(self.bank_private_key_file, "BANK_PRIVATE_KEY_FILE"),
            bank_public_key=public_key(self.bank_public_key_file, "BANK_PUBLIC_KEY_FILE"),
            sms_url=self.sms_url,
            sms_key=shared_key(self.sms_key_file, "SMS_KEY_FILE"),
            risk_model_directory=self.risk_model_directory,
            documents_directory=self.documents_directory,
            small_amount_limit_minor=self.small_amount_limit_minor,
            small_amount_daily_limit_minor=self.small_amount_daily_limit_minor,
            callback_confirm_over_minor=self.callback_confirm_over_minor,
            order_expiry_seconds=self.order_expiry_seconds,
            challenge_seconds=self.challenge_seconds,
            review_seconds=self.review_seconds,
            sweep_interval_seconds=self.sweep_interval_seconds,
            dispatch_interval_seconds=self.dispatch_interval_seconds,
            webhook_loopback_addresses=self.webhook_loopback_addresses,
            replay_allowed=self.replay_allowed,
            crash_point=self.crash_point,
        )

    def _master_key(self) -> bytes:
        if (self.master_key is None) == (self.master_key_file is None):
            raise _named(
                "master_key", "or PURSER_MASTER_KEY_FILE must be set, and only one of them"
            )
        if self.master_key_file is not None:
            text, name = (
                content(self.master_key_file, "MASTER_KEY_FILE").decode(),
                "master_key_file",
            )
        else:
            text, name = self.master_key or "", "master_key"
        try:
            key = base64.b64decode(text.strip(), validate=True)
        except (binascii.Error, ValueError):
            raise _named(name, "is not base64") from None
        if len(key) != MASTER_KEY_SIZE:
            raise _named(name, f"must hold {MASTER_KEY_SIZE} bytes, not {len(key)}")
        return key


class SimulatorSettingsSource(BaseSettings):
    """What the channel simulator reads: it stands for a bank, and shares no setting with us."""

    model_config = SettingsConfigDict(
        env_prefix=SIMULATOR_PREFIX, extra="ignore", env_ignore_empty=True
    )

    port: int = Field(ge=1, le=65_535, description="Port that the simulator listens on.")
    public_url: HttpUrl = Field(description="URL under which payers reach its cashier page.")
    database: Path = Field(description="SQLite file with the bank's own books.")
    private_key_file: Path = Field(description="The bank's Ed25519 key, PEM.")
    client_public_key_file: Path = Field(description="Our Ed25519 key for the bank, PEM.")
    sms_key_file: Path = Field(description="File with the key shared for text messages.")
    admin_token_file: Path = Field(description="File with the token of its fault script.")
    time_factor: float = Field(1.0, gt=0, description="Shrinks or stretches its delays.")


Group = TypeVar("Group", bound=BaseSettings)


def read(group: type[Group]) -> Group:
    """The settings of one group.

    Raises `SettingsInvalid` with one line about everything that is missing or wrong.
    """
    prefix = str(group.model_config["env_prefix"])
    if group is Settings:
        refuse_unknown()
    try:
        return group(_env_file=environment_file())
    except ValidationError as invalid:
        raise SettingsInvalid(_line(invalid, prefix)) from None


def place() -> Place:
    """Home, host and port; they never come from the file in the home itself."""
    try:
        return Place()
    except ValidationError as invalid:
        raise SettingsInvalid(_line(invalid, PREFIX)) from None


def owner_database_url() -> str:
    """`PURSER_OWNER_DATABASE_URL`, which only migrations need. Raises `SettingsInvalid`."""
    url = environment().get("PURSER_OWNER_DATABASE_URL")
    if not url:
        raise _named("owner_database_url", "is missing: migrations run as the database's owner")
    try:
        return _database_url(url)
    except ValueError as error:
        raise _named("owner_database_url", str(error)) from None


def environment() -> dict[str, str]:
    """The `PURSER_` variables that are set, over those of a running development stack."""
    from dotenv import dotenv_values

    recorded = {name: value or "" for name, value in dotenv_values(environment_file()).items()}
    return recorded | given()


def given() -> dict[str, str]:
    """The `PURSER_` variables that are set, and nothing else."""
    return {name: value for name, value in os.environ.items() if name.startswith(PREFIX) and value}


def inherited_environment() -> dict[str, str]:
    """All variables, for child processes."""
    return dict(os.environ)


def environment_file() -> Path:
    """Where a running development stack keeps its settings."""
    return place().home / "environment"


def private_key(path: Path, name: str) -> bytes:
    """A PEM document with an Ed25519 private key; raises `SettingsInvalid` for anything else."""
    document = content(path, name)
    try:
        right = isinstance(load_pem_private_key(document, None), Ed25519PrivateKey)
    except (ValueError, TypeError):
        right = False
    if not right:
        raise _named(name, "does not hold an unencrypted Ed25519 private key in PEM")
    return document


def public_key(path: Path, name: str) -> bytes:
    """A PEM document with an Ed25519 public key; raises `SettingsInvalid` for anything else."""
    document = content(path, name)
    try:
        right = isinstance(load_pem_public_key(document), Ed25519PublicKey)
    except ValueError:
        right = False
    if not right:
        raise _named(name, "does not hold an Ed25519 public key in PEM")
    return document


def shared_key(path: Path, name: str) -> bytes:
    """The bytes of a shared key, without white space around them; raises `SettingsInvalid`."""
    key = content(path, name).strip()
    if len(key) < SMS_KEY_SIZE_MIN:
        raise _named(name, f"must hold at least {SMS_KEY_SIZE_MIN} bytes")
    return key


def content(path: Path, name: str) -> bytes:
    """A file that a setting names; raises `SettingsInvalid` when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise _named(name, f"names a file that cannot be read: {error.strerror}") from None


def settings_table() -> str:
    """The table of all settings, in Markdown, for the README."""
    rows = ["| setting | meaning | default |", "|---|---|---|"]
    for group in (Settings, SimulatorSettingsSource):
        for name, field in group.model_fields.items():
            variable = f"{group.model_config['env_prefix']}{name}".upper()
            default = "required" if field.is_required() else _shown(field.default)
            rows.append(f"| `{variable}` | {field.description} | {default} |")
            if name == "database_url":
                rows.append(
                    "| `PURSER_OWNER_DATABASE_URL` | PostgreSQL as the owner; "
                    "`purser migrate` alone needs it. | |"
                )
    return "\n".join(rows) + "\n"


def _shown(default: object) -> str:
    return "" if default in (None, "", ()) else f"`{default}`"


def refuse_unknown() -> None:
    """Raise `SettingsInvalid` for a `PURSER_` variable that means nothing, maybe a slip."""
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    known.add("PURSER_OWNER_DATABASE_URL")
    for name in os.environ:
        if name.startswith((SIMULATOR_PREFIX, TEST_PREFIX)) or not name.startswith(PREFIX):
            continue
        if name not in known:
            raise SettingsInvalid(f"{name} is not a setting of Purser")


def _named(name: str, problem: str) -> SettingsInvalid:
    return SettingsInvalid(f"{PREFIX}{name.upper()} {problem}")


def _line(invalid: ValidationError, prefix: str) -> str:
    """Never the given value: it may be a secret."""
    problems = []
    for error in invalid.errors(include_input=False, include_url=False, include_context=False):
        name = "".join(f"{prefix}{part}".upper() for part in error["loc"][:1])
        message = "is missing" if error["type"] == "missing" else error["msg"]
        problems.append(f"{name} {message.removeprefix('Value error, ')}".strip())
    if len(problems) > PROBLEMS_SHOWN_MAX:
        # Nothing was set at all: most likely a command in another terminal than `make run`.
        more = len(problems) - PROBLEMS_SHOWN_MAX
        problems[PROBLEMS_SHOWN_MAX:] = [
            f"{more} more, and no development stack runs in {place().home}"
        ]
    return "; ".join(problems)
