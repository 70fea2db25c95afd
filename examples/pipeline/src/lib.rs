//! Two steps of a pipeline. Of an order they make a priced order, and of a priced order an invoice.
//!
//! One module holds both, and the kind of the event says which one is meant. `workers.toml` makes two handlers of it, each
//! with its own group, its own state, and leave to emit to the next stream only.

use pelton_sdk::{Error, Event, Handler, NewEvent, emit, state};
use serde::{Deserialize, Serialize};

const PRICE: u64 = 5;

/// In the stream `orders`. The key is the customer.
#[derive(Deserialize)]
struct Order {
    /// The customer's first order is 1, the next one 2.
    order: u64,
    quantity: u64,
}

/// In the stream `priced`.
#[derive(Serialize, Deserialize)]
struct Priced {
    order: u64,
    amount: u64,
}

/// In the stream `invoices`.
#[derive(Serialize)]
struct Invoice {
    order: u64,
    amount: u64,
    #[serde(flatten)]
    account: Account,
}

/// What the state holds for a customer. An order that was lost, billed twice or overtaken by another would show: the
/// numbers of invoices and orders would differ.
#[derive(Default, Serialize, Deserialize)]
struct Account {
    /// How many invoices there are.
    invoice: u64,
    /// Their sum.
    balance: u64,
}

struct Step;

impl Handler for Step {
    fn handle(event: Event) -> Result<(), Error> {
        let Some(customer) = event.key.as_deref() else {
            return Err(Error::permanent("an order without a key: whose is it?"));
        };
        match event.kind.as_str() {
            "order.placed" => emit("priced", price(&event)?.key(customer)),
            "order.priced" => emit("invoices", bill(&event, customer)?.key(customer)),
            other => Err(Error::permanent(format_args!("no step is made for events of kind {other:?}"))),
        }
    }
}

pelton_sdk::export!(Step);

fn price(event: &Event) -> Result<NewEvent, Error> {
    let Order { order, quantity } = event.json()?;
    let amount = quantity.checked_mul(PRICE).ok_or_else(|| Error::permanent("so many cannot be paid"))?;
    NewEvent::json("order.priced", &Priced { order, amount })
}

fn bill(event: &Event, customer: &str) -> Result<NewEvent, Error> {
    let Priced { order, amount } = event.json()?;
    let key = format!("account/{customer}");
    let mut account: Account = state::get_json(&key)?.unwrap_or_default();
    account.invoice += 1;
    account.balance = account.balance.saturating_add(amount);
    state::set_json(&key, &account)?;
    NewEvent::json("invoice.made", &Invoice { order, amount, account })
}
