// Charges each order through a payment service, and emits it with the charge to the stream `paid`.

import { config, defineHandler, emit, permanent, retryAfter, transient } from "pelton-sdk";
import { send } from "pelton-sdk/http";
import type { Response } from "pelton-sdk/http";
import * as v from "valibot";

// What else the order holds goes on as it came.
const Order = v.looseObject({ customer: v.string(), amount: v.pipe(v.number(), v.integer(), v.minValue(1)) });
const Charge = v.object({ charge: v.string() });

export const handler = defineHandler((event) => {
  const order = event.json(Order);

  // The answer to an earlier attempt may have been lost on its way, with the order charged. The key tells the service.
  const answer = send({
    method: "POST",
    url: `${config.get("payments")}/charges`,
    headers: { "idempotency-key": event.id },
    json: { customer: order.customer, amount: order.amount },
    timeoutMs: 1000,
  });
  if (!answer.ok) throw failure(answer);

  const { charge } = answer.json(Charge);
  emit("paid", { kind: "order.paid", key: event.key, json: { ...order, charge } });
});

/** Whether, and when, another attempt can help. */
function failure(answer: Response) {
  const reason = `${answer.status} ${answer.text()}`;
  const delayMs = answer.retryAfterMs();
  if (delayMs !== undefined) return retryAfter(delayMs, reason);
  return answer.status === 429 || answer.status >= 500 ? transient(reason) : permanent(reason);
}
