"""Rows of those who ask, and of what proves it.

Passwords stand in `credential`, which only their owner's phase can read, so that nobody who lists
customers or operators ever holds a hash. Secrets are sealed, hashed or keyed digests, never clear.
"""

from __future__ import annotations

from tortoise import fields
from tortoise.models import Model


class Customer(Model):
    """A payer. PENDING until a code proved the address; several pending rows may share one."""

    customer_id = fields.UUIDField(primary_key=True)
    phone = fields.CharField(max_length=20, null=True)
    email = fields.CharField(max_length=254, null=True)
    display_name = fields.CharField(max_length=64)
    status = fields.CharField(max_length=16)
    created_at = fields.DatetimeField()

    class Meta:
        table = "customer"


class Merchant(Model):
    """Who gets paid. The fee is a rate per million, the limit is per payment in minor units."""

    merchant_id = fields.UUIDField(primary_key=True)
    name = fields.CharField(max_length=128)
    status = fields.CharField(max_length=16)
    fee_rate_millionths = fields.IntField()
    currencies: fields.Field[list[str]] = fields.JSONField()
    payment_limit_minor = fields.BigIntField()
    created_at = fields.DatetimeField()

    class Meta:
        table = "merchant"


class MerchantKey(Model):
    """What verifies a merchant's signatures: a public key or a shared secret, sealed in both cases.

    The seal binds the key to its id and merchant: a row written without the master key verifies
    nothing.
    """

    key_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    algorithm = fields.CharField(max_length=32)
    sealed_key = fields.BinaryField()
    created_at = fields.DatetimeField()
    expires_at = fields.DatetimeField(null=True)

    class Meta:
        table = "merchant_key"


class Operator(Model):
    """One who runs the platform. What they may do follows from their roles."""

    operator_id = fields.UUIDField(primary_key=True)
    email = fields.CharField(max_length=254)
    roles: fields.Field[list[str]] = fields.JSONField()
    status = fields.CharField(max_length=16)
    created_at = fields.DatetimeField()

    class Meta:
        table = "operator"


class Credential(Model):
    """One password of one owner, as an Argon2id hash of its peppered form. Its id is derived."""

    credential_id = fields.UUIDField(primary_key=True)
    owner_kind = fields.CharField(max_length=16)
    owner_id = fields.UUIDField()
    kind = fields.CharField(max_length=16)
    password_hash = fields.TextField()
    changed_at = fields.DatetimeField()

    class Meta:
        table = "credential"


class Login(Model):
    """One sign-in and all tokens that follow from it: the family that ends as one."""

    login_id = fields.UUIDField(primary_key=True)
    principal_kind = fields.CharField(max_length=16)
    principal_id = fields.UUIDField()
    scopes: fields.Field[list[str]] = fields.JSONField()
    roles: fields.Field[list[str]] = fields.JSONField()
    created_at = fields.DatetimeField()
    expires_at = fields.DatetimeField()
    ended_at = fields.DatetimeField(null=True)
    end_reason = fields.CharField(max_length=32, null=True)

    class Meta:
        table = "login"


class RefreshToken(Model):
    """One refresh token by its SHA-256. Used once; used again, it ends its login."""

    token_digest = fields.CharField(max_length=64, primary_key=True)
    login_id = fields.UUIDField()
    created_at = fields.DatetimeField()
    expires_at = fields.DatetimeField()
    used_at = fields.DatetimeField(null=True)

    class Meta:
        table = "refresh_token"


class OneTimeCode(Model):
    """A code that was asked for. The digits exist only in the SMS; here stands their keyed
    digest.
    """

    code_id = fields.UUIDField(primary_key=True)
    customer_id = fields.UUIDField()
    purpose = fields.CharField(max_length=32)
    resource_id = fields.UUIDField()
    binding = fields.CharField(max_length=64)
    destination_kind = fields.CharField(max_length=8)
    destination = fields.CharField(max_length=254)
    state = fields.CharField(max_length=16)
    code_digest = fields.CharField(max_length=64, null=True)
    tries_count = fields.SmallIntField()
    tries_max = fields.SmallIntField()
    issues_count = fields.SmallIntField()
    requested_at = fields.DatetimeField()
    expires_at = fields.DatetimeField()

    class Meta:
        table = "one_time_code"


class SigningKey(Model):
    """A key that signs our tokens; only its sealed private part, the public one follows from it."""

    signing_key_id = fields.UUIDField(primary_key=True)
    sealed_private_key = fields.BinaryField()
    created_at = fields.DatetimeField()
    retires_at = fields.DatetimeField(null=True)

    class Meta:
        table = "signing_key"


class RequestNonce(Model):
    """A signed request that was accepted, kept as long as its signature could be sent again."""

    nonce_id = fields.UUIDField(primary_key=True)
    expires_at = fields.DatetimeField()

    class Meta:
        table = "request_nonce"


class LimitCounter(Model):
    """Guesses or permits taken within a window. Its id is a hash of what is counted and for
    whom.
    """

    counter_id = fields.UUIDField(primary_key=True)
    taken_count = fields.IntField()
    window_ends_at = fields.DatetimeField()

    class Meta:
        table = "limit_counter"
