"""A merchant's server that takes webhooks: it verifies each one, and drops doubles by their id.

    make run                                                        # once, until it says ready
    PURSER_WEBHOOK_LOOPBACK_ADDRESSES=127.0.0.1:9000 make run       # then so, in one terminal
    .venv/bin/python examples/webhook_receiver.py                   # and this in another

Purser calls no address of its own machine unless the setting names it. The receiver registers
itself, asks for the events of the last day again, and prints what comes until Ctrl-C.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

from merchant_refund import call
from running import Running, arguments, running
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

SET = """mutation($input: WebhookEndpointSetInput!) { webhookEndpointSet(input: $input) {
  webhookEndpoint { id } secret userErrors { code message } } }"""
ROTATE = """mutation($input: WebhookSecretRotateInput!) { webhookSecretRotate(input: $input) {
  secret userErrors { code message } } }"""
REPLAY = """mutation($input: WebhookEventReplayInput!) { webhookEventReplay(input: $input) {
  eventsCount userErrors { code message } } }"""
BODY_BYTES_MAX = 256 * 1024


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=9000)
    given = parser.parse_args()
    run = running(given.home)
    with HTTPServer(("127.0.0.1", given.port), Receiver) as server:
        Receiver.webhook = Webhook(registered(run, f"http://127.0.0.1:{given.port}/webhooks"))
        print(f"{replayed(run)} events of the last day come again")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("done")


class Receiver(BaseHTTPRequestHandler):
    """Verify, remember the id, answer 204; work on the event belongs after the answer."""

    webhook: Webhook
    seen: set[str] = set()  # noqa: RUF012  One server, one set; a real one keeps it in a table.

    def do_POST(self) -> None:
        body = self.rfile.read(min(int(self.headers.get("content-length", 0)), BODY_BYTES_MAX))
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            self.webhook.verify(body, headers)
        except WebhookVerificationError:
            self.answer(401)
            return
        self.answer(204)
        event = json.loads(body)
        if event["id"] in self.seen:
            return
        self.seen.add(event["id"])
        order = event["data"].get("order", {})
        amount = order.get("amount", {})
        print(
            f"{event['type']:<22} version {event['resource_version']}"
            f"  {order.get('merchant_order_no', '')}  {amount.get('formatted', '')}"
            f" {amount.get('currency', '')}",
            flush=True,
        )

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """What is printed is enough."""


def registered(run: Running, url: str) -> str:
    """Point the merchant's events here; the secret that signs them from now on."""
    found = call(run.url, run.key_id, run.merchant_key, SET, {"input": {"url": url}})
    if found["userErrors"]:
        raise SystemExit(
            f"{found['userErrors'][0]['message']} Was the API started with"
            f" PURSER_WEBHOOK_LOOPBACK_ADDRESSES={url.removeprefix('http://').split('/')[0]}?"
        )
    if found["secret"]:
        return str(found["secret"])
    # The endpoint had its secret already, and a secret is shown only once: take a new one.
    wanted = {"endpointId": found["webhookEndpoint"]["id"]}
    rotated = call(run.url, run.key_id, run.merchant_key, ROTATE, {"input": wanted})
    return str(rotated["secret"])


def replayed(run: Running) -> int:
    """Ask for everything of the last day again; how many events."""
    now = datetime.now(UTC)
    span = {"beginsAt": (now - timedelta(days=1)).isoformat(), "endsAt": now.isoformat()}
    found = call(run.url, run.key_id, run.merchant_key, REPLAY, {"input": {"range": span}})
    return int(found["eventsCount"] or 0)


if __name__ == "__main__":
    main()
