//! Delivers orders through an outside service that fails on command.
//!
//! The service is played by the handler's configuration, which may be changed while the daemon runs. Each delivered order
//! becomes an event, numbered per customer, so that a look at the stream `deliveries` tells whether an order is missing,
//! was delivered twice, or came out of order.

use pelton_sdk::{Error, Event, Handler, NewEvent, config, emit, log, state};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Order {
    /// The customer's first order is 1, the next one 2.
    number: u64,
}

#[derive(Serialize)]
struct Delivered<'a> {
    customer: &'a str,
    number: u64,
    /// Deliveries to this customer so far. The same as the order's number, as long as none is missing or overtaken.
    delivery: u64,
}

struct Courier;

impl Handler for Courier {
    fn handle(event: Event) -> Result<(), Error> {
        let order: Order = event.json()?;
        let Some(customer) = event.key.as_deref() else {
            return Err(Error::permanent("an order without a key: whose is it?"));
        };
        call_service(customer, &event.id)?;

        let key = format!("deliveries/{customer}");
        let delivery = state::get_json(&key)?.unwrap_or(0) + 1;
        state::set_json(&key, &delivery)?;

        let delivered = Delivered { customer, number: order.number, delivery };
        emit("deliveries", NewEvent::json("order.delivered", &delivered)?.key(customer))
    }
}

pelton_sdk::export!(Courier);

/// Stands for a call over the network. A real service would be given the event's id as the idempotency key: the call may
/// be made again after a failure or a crash, and the id is the same every time.
fn call_service(customer: &str, idempotency_key: &str) -> Result<(), Error> {
    log::debug!("POST /deliveries, Idempotency-Key: {idempotency_key}");
    let service = config::get("service")?.unwrap_or_else(|| "up".to_owned());
    let (word, customers) = service.split_once(':').unwrap_or((&service, ""));
    let fails_now = customers.is_empty() || customers.split(',').any(|each| each == customer);
    match word {
        "up" => Ok(()),
        "down" | "rejects" if !fails_now => Ok(()),
        "down" => Err(Error::transient("503 Service Unavailable")),
        "rejects" => Err(Error::permanent(format_args!("422 the address of {customer} is unknown"))),
        _ => Err(Error::permanent(format_args!(
            "config service is {service:?}; expected \"up\", \"down\" or \"rejects\", or as \"down:ada,bob\" for some customers"
        ))),
    }
}
