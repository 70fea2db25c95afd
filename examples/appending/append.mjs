// Appends events in a transaction of the application's own.
//
//     npm install pg
//     DATABASE_URL=postgres://… node append.mjs

import pg from "pg";

const client = new pg.Client({ connectionString: process.env.DATABASE_URL });
await client.connect();

// Runs work in one transaction: stored together, or not at all.
async function transaction(work) {
  await client.query("BEGIN");
  try {
    const result = await work();
    await client.query("COMMIT");
    return result;
  } catch (error) {
    await client.query("ROLLBACK");
    throw error;
  }
}

// To be the last statement of its transaction. The driver would make an array of PostgreSQL's out of one of JavaScript's:
// JSON goes as text.
async function append(stream, events) {
  const { rows } = await client.query("SELECT * FROM pelton.append($1, $2)", [stream, JSON.stringify(events)]);
  return rows;
}

await client.query(
  "CREATE TABLE IF NOT EXISTS orders (number text PRIMARY KEY, customer text NOT NULL, total numeric NOT NULL)",
);

const placed = {
  id: "order-4713-placed",
  key: "eve",
  kind: "order.placed",
  headers: { source: "shop" },
  payload: { number: "4713", total: 12 },
};
const place = () =>
  transaction(async () => {
    await client.query("INSERT INTO orders VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", ["4713", "eve", 12]);
    return append("orders", [placed]);
  });
console.log(await place());
// Sent again, say after a lost answer: reported, not appended.
console.log(await place());

// Several streams at once, and bytes that are no JSON.
const events = [
  { stream: "orders", key: "eve", kind: "order.paid", payload: { number: "4713" } },
  { stream: "invoices", key: "eve", kind: "invoice.pdf", payload_base64: Buffer.from("%PDF-1.7").toString("base64") },
];
const { rows } = await client.query("SELECT * FROM pelton.append($1)", [JSON.stringify(events)]);
console.log(rows);

// What is refused takes the whole transaction back.
try {
  await transaction(() => append("orders", [{ key: "eve", paylod: {} }]));
} catch (error) {
  console.log("refused:", error.message);
}

await client.end();
