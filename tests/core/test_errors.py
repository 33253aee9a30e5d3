"""The tree of errors: each code once, each telling whether to retry and whether money moved."""

from __future__ import annotations

import inspect

import pytest

from core import errors
from core.errors import PurserError, error_classes, error_of

RETRYABLE = {
    "INSUFFICIENT_MERCHANT_BALANCE",
    "BUSY",
    "THROTTLED",
    "IDEMPOTENCY_IN_PROGRESS",
    "OPERATION_IN_PROGRESS",
    "OUTCOME_UNKNOWN",
}
KINDS = (errors.Refused, errors.NotPermitted, errors.Conflict, errors.Busy)

concrete = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, PurserError) and found not in (PurserError, *KINDS)
]


@pytest.mark.parametrize("found", concrete, ids=lambda found: found.__name__)
def test_each_class_has_a_code_of_its_own_that_is_its_name(found: type[PurserError]) -> None:
    assert "code" in vars(found)
    name = "ServerBusy" if found.code == "BUSY" else found.code.title().replace("_", "")
    assert name == found.__name__
    assert error_classes()[found.code] is found
    assert found.default_message.endswith((".", "!"))


@pytest.mark.parametrize("found", concrete, ids=lambda found: found.__name__)
def test_each_class_tells_whether_to_retry_and_whether_money_may_have_moved(
    found: type[PurserError],
) -> None:
    assert found.retryable is (found.code in RETRYABLE)
    assert found.outcome_known is (found.code != "OUTCOME_UNKNOWN")
    assert issubclass(found, KINDS) or found is errors.OutcomeUnknown
    assert not issubclass(found, errors.Busy) or found.retryable


@pytest.mark.parametrize("found", concrete, ids=lambda found: found.__name__)
def test_a_stored_refusal_comes_back_as_what_it_was(found: type[PurserError]) -> None:
    again = error_of(found.code, "said so", {"available_minor": 7})
    assert type(again) is found
    assert (again.message, again.data) == ("said so", {"available_minor": 7})
    assert error_of(found.code).message == found.default_message


def test_a_code_that_stands_twice_is_found() -> None:
    double = type("Double", (errors.Refused,), {"code": "NOT_FOUND"})
    with pytest.raises(ValueError, match="NOT_FOUND stands twice"):
        error_classes()
    del double
    import gc

    gc.collect()
    assert error_classes()["NOT_FOUND"] is errors.NotFound


def test_an_unknown_code_is_our_own_bug() -> None:
    with pytest.raises(KeyError):
        error_of("NO_SUCH_CODE")
