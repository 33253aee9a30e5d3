"""Root fields of Mutation about merchants: their keys and tokens, and what operators change."""

from __future__ import annotations

import uuid

from core.errors import InvalidArgument, NotFound
from identity import merchant_keys, merchants, operators
from identity.merchant_keys import KeyView
from identity.permissions import Permission, require
from resolvers import views
from resolvers.context import Info
from resolvers.given import merchant_of, optional_text, text
from resolvers.guard import PUBLIC, mutation
from schema import inputs, payloads
from schema.node import key_of

OVERLAP_SECONDS_MAX = 7 * 86_400


@mutation(
    Permission.MERCHANT_TOKEN_ISSUE,
    payloads.MerchantTokenIssuePayload,
    "A token that reads a merchant's data and moves no money. It is good for an hour.",
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


@mutation(
    PUBLIC,
    payloads.OperatorLoginPayload,
    "Sign an operator in. Ten wrong passwords in a row lock the address for half an hour.",
    sensitive=True,
)
async def operator_login(
    info: Info, input: inputs.OperatorLoginInput
) -> payloads.OperatorLoginPayload:
    tokens = await operators.login(text(input.email, "email"), text(input.password, "password"))
    return payloads.OperatorLoginPayload(tokens=views.tokens(tokens))


@mutation(Permission.MERCHANT_REGISTER, payloads.MerchantRegisterPayload, "Register a merchant.")
async def merchant_register(
    info: Info, input: inputs.MerchantRegisterInput
) -> payloads.MerchantRegisterPayload:
    found = await merchants.register_merchant(
        text(input.name, "name"),
        currencies=input.currencies,
        fee_rate_millionths=input.fee_rate_millionths,
        payment_limit_minor=int(input.payment_limit_minor),
        by=info.context.asker,
    )
    return payloads.MerchantRegisterPayload(merchant=views.merchant(found))


@mutation(
    Permission.MERCHANT_SUSPEND,
    payloads.MerchantUpdatePayload,
    "Stop a merchant's trade or take that back; an administrator may change its fee too.",
)
async def merchant_update(
    info: Info, input: inputs.MerchantUpdateInput
) -> payloads.MerchantUpdatePayload:
    asker = info.context.asker
    merchant_id = key_of("Merchant", input.merchant_id, "merchantId")
    found = await merchants.read_merchant(asker, merchant_id)
    if input.fee_rate_millionths is not None:
        require(asker, Permission.MERCHANT_REGISTER)
        found = await merchants.set_fee_rate(merchant_id, input.fee_rate_millionths, by=asker)
    if input.status is not None:
        found = await merchants.set_merchant_status(merchant_id, input.status.value, by=asker)
    return payloads.MerchantUpdatePayload(merchant=views.merchant(found))


async def _new_key(
    info: Info, merchant_id: uuid.UUID, public_key: str | None
) -> tuple[KeyView, str | None]:
    pem = optional_text(public_key, "publicKey")
    if pem is None:
        return await merchant_keys.make_secret(merchant_id, by=info.context.asker)
    return await merchant_keys.add_public_key(merchant_id, pem, by=info.context.asker), None
