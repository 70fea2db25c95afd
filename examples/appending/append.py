"""Appends events in a transaction of the application's own.

    pip install 'psycopg[binary]'
    DATABASE_URL=postgres://… python append.py
"""

import base64
import os

import psycopg
from psycopg.types.json import Jsonb


def append(cursor, stream, events):
    """Appends events to a stream, in the cursor's transaction; to be its last statement."""
    cursor.execute("SELECT * FROM pelton.append(%s, %s)", (stream, Jsonb(events)))
    return cursor.fetchall()


with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS orders (number text PRIMARY KEY, customer text NOT NULL, total numeric NOT NULL)"
    )
    connection.commit()

    # One transaction: the order and its event are stored together, or neither is. The append comes last.
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO orders VALUES (%s, %s, %s) ON CONFLICT DO NOTHING", ("4712", "bob", 7))
        placed = {
            "id": "order-4712-placed",
            "key": "bob",
            "kind": "order.placed",
            "headers": {"source": "shop"},
            "payload": {"number": "4712", "total": 7},
        }
        for stream, partition, offset, event_id, duplicate in append(cursor, "orders", [placed]):
            print(stream, partition, offset, event_id, "duplicate" if duplicate else "appended")

    # Sent again, say after a lost answer: reported, not appended.
    with connection.transaction(), connection.cursor() as cursor:
        print(append(cursor, "orders", [placed]))

    # Several streams at once, and bytes that are no JSON.
    pdf = base64.b64encode(b"%PDF-1.7").decode()
    events = [
        {"stream": "orders", "key": "bob", "kind": "order.paid", "payload": {"number": "4712"}},
        {"stream": "invoices", "key": "bob", "kind": "invoice.pdf", "payload_base64": pdf},
    ]
    with connection.transaction():
        print(connection.execute("SELECT * FROM pelton.append(%s)", (Jsonb(events),)).fetchall())

    # What is refused takes the whole transaction back.
    try:
        with connection.transaction(), connection.cursor() as cursor:
            append(cursor, "orders", [{"key": "bob", "paylod": {}}])
    except psycopg.errors.InvalidParameterValue as error:
        print("refused:", error.diag.message_primary)
