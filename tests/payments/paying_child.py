"""A second API process: it makes one payment many times at once, when it is told to.

Run as `python -m tests.payments.paying_child`; the task comes as one line of JSON on the standard
input, then it says `ready`, waits for another line, and tells what each call was answered.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from core import configuration, hub, phase
from core.errors import PurserError
from payments.pipeline import accept_operation
from payments.values import OpenOrder
from tests.payments.crash_child import request_of, unpacked


async def told(request: OpenOrder) -> tuple[str, bool]:
    """The order's id, or the code of the error; and whether it was a stored answer."""
    try:
        answer = await accept_operation(request)
    except PurserError as error:
        return error.code, False
    assert answer.order is not None
    return str(answer.order.order_id), answer.replay


async def _run(task: dict[str, Any]) -> None:
    values = unpacked(task["configuration"])
    configuration.install(values)
    hub.connect(values.redis_url)
    await phase.connect(values.database_url, pool_size=4, application_name="paying-child")
    print("ready", flush=True)
    sys.stdin.readline()
    requests = [request_of(each) for each in task["requests"]]
    print(json.dumps(await asyncio.gather(*map(told, requests))), flush=True)
    await phase.close()
    await hub.close()


if __name__ == "__main__":
    asyncio.run(_run(json.loads(sys.stdin.readline())))
