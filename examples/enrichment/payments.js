// A payment service that fails on command: the customer's name says how it takes the first request of a charge.
//
//   node payments.js [PORT]

import http from "node:http";

/** Starts it. `charges` holds what was charged, and `requests` each request's key and the status it was answered with. */
export function paymentService(port) {
  const charges = [];
  const requests = [];
  const server = http.createServer(async (request, response) => {
    const key = request.headers["idempotency-key"];
    const first = !requests.some((earlier) => earlier.key === key);
    const answer = answerTo(await read(request), { key, first, charges });
    requests.push({ key, status: answer?.status });
    if (answer === undefined) return; // It never answers; the caller gives up.
    response.writeHead(answer.status, { "content-type": "application/json", ...answer.headers });
    response.end(answer.text ?? JSON.stringify(answer.json));
  });
  return new Promise((resolve) => {
    server.listen(port, "127.0.0.1", () => resolve({ server, port: server.address().port, charges, requests }));
  });
}

function answerTo({ customer, amount }, { key, first, charges }) {
  if (customer === "busy" && first) return { status: 503, text: "come back later" };
  if (customer === "many" && first) return { status: 429, headers: { "retry-after": "1" }, text: "too many requests" };
  if (customer === "poor") return { status: 402, text: "the card has no cover" };

  let made = charges.find((charge) => charge.key === key);
  if (made === undefined) {
    made = { key, customer, amount, charge: `ch-${charges.length + 1}` };
    charges.push(made);
  }
  // Charged, but the caller does not hear of it.
  if (customer === "lost" && first) return { status: 502, text: "bad gateway" };
  if (customer === "slow" && first) return undefined;
  return { status: 200, json: { charge: made.charge } };
}

async function read(request) {
  let text = "";
  for await (const chunk of request) text += chunk;
  return JSON.parse(text);
}

if (process.argv[1] === import.meta.filename) {
  const { port } = await paymentService(Number(process.argv[2] ?? 8790));
  console.log(`the payment service listens on http://localhost:${port}`);
}
