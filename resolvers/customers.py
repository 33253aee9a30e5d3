"""Root fields of Mutation for customers themselves: registration, logins, passwords."""

from __future__ import annotations

from core.errors import CredentialsInvalid, NotFound
from identity import customers, logins, payment_password
from identity.permissions import Permission
from resolvers import views
from resolvers.context import Info
from resolvers.given import address_of, optional_text, text
from resolvers.guard import PUBLIC, mutation
from schema import inputs, payloads
from schema.node import key_of, node_id

REGISTRATION = "Registration"


@mutation(
    PUBLIC,
    payloads.CustomerRegisterPayload,
    "Register by an address; a code goes there. The answer is the same for an address in use.",
    sensitive=True,
)
async def customer_register(
    info: Info, input: inputs.CustomerRegisterInput
) -> payloads.CustomerRegisterPayload:
    found = await customers.register(
        address_of(input.address),
        text(input.password, "password"),
        text(input.display_name, "displayName"),
    )
    return payloads.CustomerRegisterPayload(
        registration_id=node_id(REGISTRATION, found.registration_id),
        destination_masked=found.destination_masked,
        code_expires_seconds=found.code_expires_seconds,
    )


@mutation(
    PUBLIC,
    payloads.RegistrationCodeRequestPayload,
    "Send another code for a registration.",
    sensitive=True,
)
async def registration_code_request(
    info: Info, input: inputs.RegistrationCodeRequestInput
) -> payloads.RegistrationCodeRequestPayload:
    await customers.resend_code(key_of(REGISTRATION, input.registration_id, "registrationId"))
    return payloads.RegistrationCodeRequestPayload()


@mutation(
    PUBLIC,
    payloads.CustomerConfirmPayload,
    "Prove the address by its code; the customer exists from here on and is signed in.",
    sensitive=True,
)
async def customer_confirm(
    info: Info, input: inputs.CustomerConfirmInput
) -> payloads.CustomerConfirmPayload:
    try:
        registration_id = key_of(REGISTRATION, input.registration_id, "registrationId")
    except NotFound:
        raise CredentialsInvalid() from None
    tokens = await customers.confirm_registration(registration_id, text(input.code, "code"))
    profile = await customers.read_customer(registration_id)
    return payloads.CustomerConfirmPayload(
        tokens=views.tokens(tokens), customer=views.customer(profile)
    )


@mutation(
    PUBLIC,
    payloads.CustomerLoginPayload,
    "Sign in. Ten wrong passwords in a row lock the address for half an hour.",
    sensitive=True,
)
async def customer_login(
    info: Info, input: inputs.CustomerLoginInput
) -> payloads.CustomerLoginPayload:
    tokens = await customers.login(address_of(input.address), text(input.password, "password"))
    return payloads.CustomerLoginPayload(tokens=views.tokens(tokens))


@mutation(
    Permission.PROFILE_READ,
    payloads.CustomerLogoutPayload,
    "Sign out: the login and all its tokens end. Merchants and operators sign out here too.",
)
async def customer_logout(
    info: Info, input: inputs.CustomerLogoutInput
) -> payloads.CustomerLogoutPayload:
    asker = info.context.asker
    if input.everywhere:
        await logins.revoke_all(asker.principal, reason="LOGOUT", by=asker.principal)
    else:
        await logins.logout(asker)
    return payloads.CustomerLogoutPayload()


@mutation(
    PUBLIC,
    payloads.TokenRefreshPayload,
    "New tokens for a refresh token. One that is used a second time ends its whole login.",
    sensitive=True,
)
async def token_refresh(
    info: Info, input: inputs.TokenRefreshInput
) -> payloads.TokenRefreshPayload:
    tokens = await logins.refresh(text(input.refresh_token, "refreshToken"))
    return payloads.TokenRefreshPayload(tokens=views.tokens(tokens))


@mutation(
    PUBLIC,
    payloads.PasswordResetRequestPayload,
    "Send a code for a new login password. The answer is the same for an unknown address.",
    sensitive=True,
)
async def password_reset_request(
    info: Info, input: inputs.PasswordResetRequestInput
) -> payloads.PasswordResetRequestPayload:
    code = await customers.request_password_reset(address_of(input.address))
    return payloads.PasswordResetRequestPayload(
        destination_masked=code.destination_masked, code_expires_seconds=code.expires_seconds
    )


@mutation(
    PUBLIC,
    payloads.PasswordResetPayload,
    "Set a new login password by a code; all logins of the customer end.",
    sensitive=True,
)
async def password_reset(
    info: Info, input: inputs.PasswordResetInput
) -> payloads.PasswordResetPayload:
    await customers.reset_password(
        address_of(input.address), text(input.code, "code"), text(input.new_password, "newPassword")
    )
    return payloads.PasswordResetPayload()


@mutation(
    Permission.PROFILE_WRITE,
    payloads.PasswordChangePayload,
    "Replace the login password; all logins of the customer end, this one too.",
    sensitive=True,
)
async def password_change(
    info: Info, input: inputs.PasswordChangeInput
) -> payloads.PasswordChangePayload:
    await customers.change_password(
        info.context.customer_id,
        text(input.current_password, "currentPassword"),
        text(input.new_password, "newPassword"),
    )
    return payloads.PasswordChangePayload()


@mutation(
    Permission.PROFILE_WRITE,
    payloads.PaymentPasswordSetPayload,
    "Set the payment password, or change it. Five wrong ones lock it for half an hour.",
    sensitive=True,
)
async def payment_password_set(
    info: Info, input: inputs.PaymentPasswordSetInput
) -> payloads.PaymentPasswordSetPayload:
    await payment_password.set_payment_password(
        info.context.customer_id,
        text(input.new_payment_password, "newPaymentPassword"),
        unchecked_current=optional_text(input.current_payment_password, "currentPaymentPassword"),
        unchecked_login_password=optional_text(input.login_password, "loginPassword"),
    )
    return payloads.PaymentPasswordSetPayload()


@mutation(
    Permission.PROFILE_WRITE,
    payloads.PaymentPasswordResetRequestPayload,
    "Send a code with which a forgotten payment password can be replaced.",
    sensitive=True,
)
async def payment_password_reset_request(
    info: Info, input: inputs.PaymentPasswordResetRequestInput
) -> payloads.PaymentPasswordResetRequestPayload:
    customer_id = info.context.customer_id
    await customers.prove_password(customer_id, text(input.login_password, "loginPassword"))
    code = await payment_password.request_payment_password_reset(customer_id)
    return payloads.PaymentPasswordResetRequestPayload(
        destination_masked=code.destination_masked, code_expires_seconds=code.expires_seconds
    )


@mutation(
    Permission.PROFILE_WRITE,
    payloads.PaymentPasswordResetPayload,
    "Replace a forgotten payment password, by a code and the login password together.",
    sensitive=True,
)
async def payment_password_reset(
    info: Info, input: inputs.PaymentPasswordResetInput
) -> payloads.PaymentPasswordResetPayload:
    await payment_password.reset_payment_password(
        info.context.customer_id,
        text(input.code, "code"),
        text(input.new_payment_password, "newPaymentPassword"),
        text(input.login_password, "loginPassword"),
    )
    return payloads.PaymentPasswordResetPayload()
