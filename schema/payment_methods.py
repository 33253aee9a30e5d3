"""The payment-method input: one key for each product that can pay, made of the products' `Details`.

A new product file is a new key here, without a line of code. A field of `Details` without a
description stops the start.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

import strawberry

from payments.products.registry import product_module, products
from payments.states import OperationType

FIELD_TYPES = {str: str, int: int, bool: bool}


def details_input(code: str, name: str) -> type[Any]:
    """The input type of one product's `Details`."""
    module = product_module(code)
    hints = typing.get_type_hints(module.Details)
    namespace: dict[str, Any] = {"__annotations__": {}, "__module__": __name__}
    for item in dataclasses.fields(module.Details):
        annotation, optional = _field_type(hints[item.name])
        description = item.metadata["description"]
        namespace["__annotations__"][item.name] = annotation | None if optional else annotation
        namespace[item.name] = (
            strawberry.field(description=description, default=None)
            if optional
            else strawberry.field(description=description)
        )
    description = (module.Details.__doc__ or "").strip()
    made = type(name, (), namespace)
    return strawberry.input(made, name=name, description=description)


def method_input() -> type[Any]:
    """The `@oneOf` input with a key for each product that does PAY."""
    namespace: dict[str, Any] = {"__annotations__": {}, "__module__": __name__}
    for code, module in sorted(products().items()):
        if OperationType.PAY not in module.PRODUCT.operations:
            continue
        key = code.replace("-", "_")
        made = details_input(code, f"{_pascal(code)}MethodInput")
        namespace["__annotations__"][key] = strawberry.Maybe[made]  # type: ignore[valid-type]
        namespace[key] = strawberry.field(description=(module.Details.__doc__ or "").strip())
    return strawberry.input(
        type("PaymentMethodInput", (), namespace),
        name="PaymentMethodInput",
        one_of=True,
        description="How the payer pays: exactly one key, named after the product.",
    )


def chosen(method: Any) -> tuple[str, Any]:
    """The product's code and its `Details`, from the one key that was given."""
    for code in products():
        given = getattr(method, code.replace("-", "_"), None)
        if given is not None:
            return code, details_of(code, given.value)
    raise ValueError("the executor let an empty @oneOf through")


def details_of(code: str, given: Any) -> Any:
    """The product's own dataclass, filled from its input."""
    details = product_module(code).Details
    return details(**{item.name: getattr(given, item.name) for item in dataclasses.fields(details)})


def _field_type(hint: Any) -> tuple[Any, bool]:
    arguments = typing.get_args(hint)
    if isinstance(hint, types.UnionType) and type(None) in arguments:
        inner = next(each for each in arguments if each is not type(None))
        return FIELD_TYPES[inner], True
    return FIELD_TYPES[hint], False


def _pascal(code: str) -> str:
    return "".join(part.capitalize() for part in code.replace("-", "_").split("_"))


PaymentMethodInput: Any = method_input()
PayoutDestinationInput: Any = details_input("payout", "PayoutDestinationInput")
