"""The products, found by name at start-up. A missing or doubled code stops the start."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from functools import cache
from types import ModuleType

import payments.products
from core.errors import InvalidArgument
from payments.product import Product

REQUIRED_NAMES = ("Details", "PRODUCT", "check", "movements")


@cache
def products() -> dict[str, ModuleType]:
    """Every product module by its code. Raises `RuntimeError` for a module that declares badly."""
    found: dict[str, ModuleType] = {}
    for info in pkgutil.iter_modules(payments.products.__path__):
        if info.name == "registry":
            continue
        module = importlib.import_module(f"payments.products.{info.name}")
        declare(found, module)
    return found


def declare(found: dict[str, ModuleType], module: ModuleType) -> None:
    """Add one module to `found`; raises `RuntimeError` naming what is missing or stands twice."""
    missing = [name for name in REQUIRED_NAMES if not hasattr(module, name)]
    if missing:
        raise RuntimeError(f"product {module.__name__} has no {', '.join(missing)}")
    product: Product = module.PRODUCT
    if not product.code or product.code in found:
        raise RuntimeError(f"product code {product.code!r} of {module.__name__} is taken or empty")
    if product.details is not module.Details or not dataclasses.is_dataclass(product.details):
        raise RuntimeError(f"product {product.code} does not declare its own Details")
    unmoved = set(product.channel_kinds) - set(product.events)
    if unmoved:
        raise RuntimeError(f"product {product.code} has no movements for {', '.join(unmoved)}")
    found[product.code] = module


def product_module(code: str) -> ModuleType:
    """The module of a product; raises `InvalidArgument` for an unknown code."""
    module = products().get(code)
    if module is None:
        raise InvalidArgument("There is no such product.", field=("method",))
    return module
