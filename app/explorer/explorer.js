"use strict";
// Runs operations: queries and mutations over HTTP, subscriptions over graphql-transport-ws. The token
// stays in the input field; nothing is stored.

const EXAMPLES = {
  "Who am I": [`query WhoAmI {
  viewer {
    kind
    scopes
    customer { id displayName hasPaymentPassword }
    merchant { id name currencies }
    operator { roles }
  }
}`, {}],
  "Register": [`mutation Register($input: CustomerRegisterInput!) {
  customerRegister(input: $input) {
    registrationId
    destinationMasked
    userErrors { code message field }
  }
}`, { input: { address: { email: "payer@example.com" }, password: "a long password", displayName: "Payer" } }],
  "Confirm": [`mutation Confirm($input: CustomerConfirmInput!) {
  customerConfirm(input: $input) {
    tokens { accessToken refreshToken accessExpiresAt }
    userErrors { code message }
  }
}`, { input: { registrationId: "", code: "" } }],
  "Top up": [`mutation TopUp($input: TopUpInput!) {
  topUp(input: $input) {
    order { id state actionUrl amount { formatted currency } }
    userErrors { code message }
  }
}`, { input: { idempotencyKey: "top-up-0001", amount: { amountMinor: "10000", currency: "CNY" } } }],
  "Pay": [`mutation Pay($input: PayInput!) {
  pay(input: $input) {
    order { id state riskOutcome challenge { expiresAt } }
    idempotentReplay
    userErrors { code message ... on InsufficientAvailableError { available { formatted } } }
  }
}`, { input: { idempotencyKey: "pay-00000001", merchantId: "", merchantOrderNo: "A-1",
    amount: { amountMinor: "3000", currency: "CNY" }, method: { account: {} } } }],
  "My wallet": [`query Wallet {
  wallet(currency: "CNY") {
    available { formatted }
    statement(first: 20) {
      nodes { recordedAt kind amount { formatted } balanceAfter { formatted } order { merchantOrderNo } }
    }
  }
}`, {}],
  "My orders": [`query Orders {
  orders(first: 20) {
    nodes { id type state amount { formatted currency } merchantName createdAt }
    pageInfo { hasNextPage endCursor }
  }
}`, {}],
  "Follow my wallet": [`subscription Wallet {
  walletUpdated(currency: "CNY") { resourceVersion wallet { available { formatted } } }
}`, {}],
};

const by = (id) => document.getElementById(id);
let socket = null;

function authorization() {
  const token = by("token").value.trim();
  return token ? { authorization: `Bearer ${token}` } : {};
}

async function send(request) {
  const answer = await fetch("/graphql", {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json", ...authorization() },
    body: JSON.stringify(request),
  });
  return answer.json();
}

function requestFromPage() {
  const text = by("variables").value.trim();
  return { query: by("query").value, variables: text ? JSON.parse(text) : {} };
}

function showAnswer(answer) {
  by("answer").textContent = JSON.stringify(answer, null, 2);
}

function showStatus(startedAt, answer) {
  const cost = answer.extensions && answer.extensions.cost;
  const points = cost ? ` · cost ${cost.actual} of ${cost.throttle.available}` : "";
  by("status").textContent = `${Math.round(performance.now() - startedAt)} ms${points}`;
}

async function run() {
  stop();
  let request;
  try {
    request = requestFromPage();
  } catch (error) {
    showAnswer({ variables: String(error) });
    return;
  }
  if (/^\s*subscription\b/m.test(request.query)) {
    follow(request);
    return;
  }
  const startedAt = performance.now();
  by("status").textContent = "…";
  try {
    const answer = await send(request);
    showAnswer(answer);
    showStatus(startedAt, answer);
  } catch (error) {
    by("status").textContent = String(error);
  }
}

function follow(request) {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/graphql`, "graphql-transport-ws");
  const seen = [];
  by("stop").disabled = false;
  by("status").textContent = "connecting";
  socket.onopen = () => socket.send(JSON.stringify({ type: "connection_init", payload: authorization() }));
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.type === "connection_ack") {
      by("status").textContent = "listening";
      socket.send(JSON.stringify({ id: "1", type: "subscribe", payload: request }));
    } else if (message.type === "next" || message.type === "error") {
      seen.unshift(message.payload);
      showAnswer(seen.slice(0, 20));
    } else if (message.type === "ping") {
      socket.send(JSON.stringify({ type: "pong" }));
    } else if (message.type === "complete") {
      stop();
    }
  };
  socket.onclose = ({ code, reason }) => {
    by("stop").disabled = true;
    by("status").textContent = `closed ${code} ${reason}`;
  };
}

function stop() {
  if (socket) socket.close(1000);
  socket = null;
  by("stop").disabled = true;
}

function useExample(name) {
  const [query, variables] = EXAMPLES[name];
  by("query").value = query;
  by("variables").value = JSON.stringify(variables, null, 2);
}

for (const name of Object.keys(EXAMPLES)) by("examples").append(element("option", name));
by("examples").addEventListener("change", (event) => useExample(event.target.value));
by("run").addEventListener("click", run);
by("stop").addEventListener("click", stop);
by("search").addEventListener("input", (event) => search(event.target.value));
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run();
});
useExample("Who am I");
loadSchema(send);
