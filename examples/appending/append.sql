-- Appends events in a transaction of the application's own. The stream has to be there: `pelton run`, `pelton migrate` and
-- `pelton append` create what workers.toml declares.
--
--     psql "$DATABASE_URL" --set ON_ERROR_STOP=1 --file append.sql

CREATE TABLE IF NOT EXISTS orders (number text PRIMARY KEY, customer text NOT NULL, total numeric NOT NULL);

-- The order and its events are stored together, or neither is. The append comes last.
BEGIN;
INSERT INTO orders VALUES ('4711', 'ada', 42.50) ON CONFLICT DO NOTHING;
SELECT * FROM pelton.append('orders', jsonb_build_array(jsonb_build_object(
    'id',      'order-4711-placed',
    'key',     'ada',
    'kind',    'order.placed',
    'headers', jsonb_build_object('source', 'shop'),
    'payload', (SELECT to_jsonb(o) FROM orders o WHERE o.number = '4711'))));
COMMIT;

-- The same id and key once more: reported, not appended.
SELECT * FROM pelton.append('orders', '[{"id": "order-4711-placed", "key": "ada", "payload": {}}]');

-- Several streams at once, and bytes that are no JSON.
SELECT * FROM pelton.append('[
    {"stream": "orders",   "key": "ada", "kind": "order.paid", "payload": {"number": "4711"}},
    {"stream": "invoices", "key": "ada", "kind": "invoice.pdf", "payload_base64": "JVBERi0xLjc="}
]');
