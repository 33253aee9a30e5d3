"""Root fields of Mutation about merchants' keys, and the tokens for their own tools."""

from __future__ import annotations

import uuid

from core.errors import InvalidArgument, NotFound
from identity import merchant_keys
from identity.merchant_keys import KeyView
from identity.permissions import Permission
from resolvers import views
from resolvers.context import Info
from resolvers.given import merchant_of, optional_text
from resolvers.guard import mutation
from schema import inputs, payloads
from schema.node import key_of

OVERLAP_SECONDS_MAX = 7 * 86_400


@mutation(
    Permission.MERCHANT_TOKEN_ISSUE,
    payloads.MerchantTokenIssuePayload,
    "A token that reads a merchant's data and moves no money. It is good for ten minutes.",
)
async def merchant_token_issue(
    info: Info, input: inputs.MerchantTokenIssueInput
) -> payloads.MerchantTokenIssuePayload:
    asker = info.context.asker
    tokens = await merchant_keys.issue_merchant_token(
        merchant_of(asker, input.merchant_id), by=asker
    )
    return payloads.MerchantTokenIssuePayload(tokens=views.tokens(tokens))


@mutation(
    Permission.MERCHANT_KEY_MANAGE,
    payloads.MerchantKeyCreatePayload,
    "Add a key for signed calls: a public key, or a shared secret that is shown once.",
)
async def merchant_key_create(
    info: Info, input: inputs.MerchantKeyCreateInput
) -> payloads.MerchantKeyCreatePayload:
    merchant_id = merchant_of(info.context.asker, input.merchant_id)
    key, secret = await _new_key(info, merchant_id, input.public_key)
    return payloads.MerchantKeyCreatePayload(merchant_key=views.merchant_key(key), secret=secret)


@mutation(
    Permission.MERCHANT_KEY_MANAGE,
    payloads.MerchantKeyRotatePayload,
    "Add a key in place of another, which stays good for an overlap.",
)
async def merchant_key_rotate(
    info: Info, input: inputs.MerchantKeyRotateInput
) -> payloads.MerchantKeyRotatePayload:
    if not 0 <= input.overlap_seconds <= OVERLAP_SECONDS_MAX:
        raise InvalidArgument("0 to 604800 seconds.", field=("overlapSeconds",))
    asker = info.context.asker
    key_id = key_of("MerchantKey", input.key_id, "keyId")
    merchant_id = merchant_of(asker, input.merchant_id)
    if key_id not in {key.key_id for key in await merchant_keys.list_keys(merchant_id, by=asker)}:
        raise NotFound(field=("keyId",))
    key, secret = await _new_key(info, merchant_id, input.public_key)
    ending = await merchant_keys.expire_key(
        merchant_id, key_id, after_seconds=input.overlap_seconds, by=asker
    )
    return payloads.MerchantKeyRotatePayload(
        merchant_key=views.merchant_key(key),
        ending_key=views.merchant_key(ending),
        secret=secret,
    )


@mutation(
    Permission.MERCHANT_KEY_MANAGE,
    payloads.MerchantKeyRevokePayload,
    "End a key at once.",
)
async def merchant_key_revoke(
    info: Info, input: inputs.MerchantKeyRevokeInput
) -> payloads.MerchantKeyRevokePayload:
    asker = info.context.asker
    key_id = key_of("MerchantKey", input.key_id, "keyId")
    merchant_id = merchant_of(asker, input.merchant_id)
    key = await merchant_keys.revoke_key(merchant_id, key_id, by=asker)
    return payloads.MerchantKeyRevokePayload(merchant_key=views.merchant_key(key))


async def _new_key(
    info: Info, merchant_id: uuid.UUID, public_key: str | None
) -> tuple[KeyView, str | None]:
    pem = optional_text(public_key, "publicKey")
    if pem is None:
        return await merchant_keys.make_secret(merchant_id, by=info.context.asker)
    return await merchant_keys.add_public_key(merchant_id, pem, by=info.context.asker), None
