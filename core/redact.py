"""The last line before a log: card numbers, bearer tokens and anything named like a secret go out.

Code must not log secrets in the first place; this filter stands behind that rule.
"""

from __future__ import annotations

import logging
import re

# A number may end a sentence; a hyphen, or a point and more digits, make it another thing.
CARD_LIKE = re.compile(r"(?<![\w-])(?<!\d\.)\d(?:[ -]?\d){12,18}(?![\w-]|\.\d)")
# The name may be the end of a longer one (refresh_token, paymentPassword).
SECRET_LIKE = re.compile(
    r"(?i)(authorization|bearer|password|secret|signature|token|cvv)"
    r"(['\"]?\s*[:= ]\s*['\"]?)(?!\s)((?:(?:bearer|basic|dpop)\s+)?[^\s'\",}]{4,})"
)
CODE_LIKE = re.compile(r"(?i)(code)(['\"]?\s*[:= ]\s*['\"]?)(\d{4,8})\b")


def redacted(text: str) -> str:
    """The text without Luhn-valid card numbers and without values that follow a secret's name."""
    for secret in (SECRET_LIKE, CODE_LIKE):
        text = secret.sub(lambda match: f"{match[1]}{match[2]}[redacted]", text)
    return CARD_LIKE.sub(lambda match: _masked(match[0]), text)


class RedactingFilter(logging.Filter):
    """Put on every handler; it redacts the finished message, arguments and traceback included."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        record.msg, record.args = redacted(message), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redacted(record.exc_text)
        return True


def _masked(candidate: str) -> str:
    digits = re.sub(r"\D", "", candidate)
    return f"[card …{digits[-4:]}]" if _luhn_valid(digits) else candidate


def _luhn_valid(digits: str) -> bool:
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if position % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0
