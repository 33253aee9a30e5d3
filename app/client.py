"""A client of the public API, as an application outside would write one: GraphQL over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
import orjson

from identity.signing_client import SigningKey, sign_request

TIMEOUT_SECONDS = 15.0


class ApiRefused(Exception):
    """The API answered with errors, or with something that is no answer; `codes` are theirs."""

    def __init__(self, message: str, codes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.codes = codes


@dataclass(frozen=True, slots=True)
class MerchantKey:
    """What a merchant's server signs with."""

    key_id: str
    key: SigningKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class Api:
    """The API at one address. `signed_url` is the address that signatures name, the public one."""

    http: httpx2.AsyncClient
    url: str
    signed_url: str

    async def ask(
        self,
        document: str,
        variables: Mapping[str, Any] | None = None,
        *,
        token: str | None = None,
        key: MerchantKey | None = None,
    ) -> dict[str, Any]:
        """The `data` of the answer. Raises `ApiRefused` for errors and refusals in a payload."""
        body = orjson.dumps({"query": document, "variables": dict(variables or {})})
        headers = {"content-type": "application/json"}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        if key is not None:
            signed_url = f"{self.signed_url}/graphql"
            headers = sign_request(
                "POST", signed_url, body, key_id=key.key_id, key=key.key, headers=headers
            )
        response = await self.http.post(f"{self.url}/graphql", content=body, headers=headers)
        return answer_of(response.status_code, response.content)


def answer_of(status: int, content: bytes) -> dict[str, Any]:
    """The `data` of an answer, if nothing in it says that it was refused."""
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise ApiRefused(f"HTTP {status} without JSON") from None
    if errors := answer.get("errors"):
        codes = tuple(str(error.get("extensions", {}).get("code", "")) for error in errors)
        raise ApiRefused("; ".join(str(error["message"]) for error in errors), codes)
    data: dict[str, Any] = answer["data"]
    for payload in data.values():
        if isinstance(payload, dict) and (refusals := payload.get("userErrors")):
            codes = tuple(str(refusal["code"]) for refusal in refusals)
            raise ApiRefused("; ".join(str(refusal["message"]) for refusal in refusals), codes)
    return data
