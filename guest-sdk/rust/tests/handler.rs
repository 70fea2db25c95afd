//! The attributes, from the signature to the call.

use pelton_sdk::mock::Host;
use pelton_sdk::{Error, Event, NewEvent, emit};
use serde::Deserialize;

fn event(payload: &str) -> NewEvent {
    NewEvent::text("order.placed", payload).id("42")
}

mod typed {
    use super::*;

    #[derive(Deserialize)]
    struct Order {
        customer: Customer,
        amount: u64,
    }

    #[derive(Deserialize)]
    struct Customer {
        name: String,
    }

    #[pelton_sdk::handler]
    fn invoice(event: &Event, Order { customer, amount }: Order) -> Result<(), Error> {
        emit("invoices", NewEvent::text("drafted", format!("{} for {amount}", event.id)).key(customer.name))
    }

    #[test]
    fn gets_what_it_asks_for() {
        let mut host = Host::new();
        host.handle::<invoice>(event(r#"{"customer":{"name":"Ada"},"amount":5}"#)).expect("handled");
        assert_eq!(host.emitted("invoices"), [NewEvent::text("drafted", "42 for 5").key("Ada")]);
    }

    #[test]
    fn is_not_called_if_the_payload_does_not_fit() {
        let reason = |payload| match Host::new().handle::<invoice>(event(payload)) {
            Err(Error::Permanent(reason)) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            reason(r#"{"customer":{"name":7},"amount":5}"#),
            "payload of kind \"order.placed\": customer.name: invalid type: integer `7`, expected a string at line 1 column 21"
        );
        assert_eq!(
            reason(r#"{"customer":{},"amount":5}"#),
            "payload of kind \"order.placed\": customer.name: missing field `name` at line 1 column 14"
        );
        assert_eq!(
            reason(r#"{"customer":{"name":"Ada"}}"#),
            "payload of kind \"order.placed\": missing field `amount` at line 1 column 27"
        );
        assert_eq!(reason(""), "payload of kind \"order.placed\": EOF while parsing a value at line 1 column 0");
    }

    #[test]
    fn stays_a_function() {
        let order = Order { customer: Customer { name: "Ada".into() }, amount: 1 };
        let mut host = Host::new();
        host.call(|| invoice(&event("").into(), order)).expect("handled");
        assert_eq!(host.emitted("invoices").len(), 1);
    }
}

mod borrowed {
    use super::*;

    #[derive(Deserialize)]
    struct Name<'a> {
        name: &'a str,
    }

    #[pelton_sdk::handler]
    fn event(name: &Name<'_>, event: &Event) -> Result<(), Error> {
        emit("names", NewEvent::text(&event.kind, name.name))
    }

    /// Its name is one that the expansion has, too.
    #[test]
    fn payloads_may_borrow_from_the_event() {
        let mut host = Host::new();
        host.handle::<event>(super::event(r#"{"name":"Ada"}"#)).expect("handled");
        assert_eq!(host.emitted("names"), [NewEvent::text("order.placed", "Ada")]);
    }
}

mod owned {
    use super::*;

    #[pelton_sdk::handler]
    fn payload(numbers: Vec<u64>, event: Event) -> Result<(), Error> {
        emit("sums", NewEvent::text(event.kind, numbers.iter().sum::<u64>().to_string()))
    }

    #[test]
    fn events_may_be_taken() {
        let mut host = Host::new();
        host.handle::<payload>(super::event("[1,2,3]")).expect("handled");
        assert_eq!(host.emitted("sums"), [NewEvent::text("order.placed", "6")]);
    }
}

mod batch {
    use super::*;
    use pelton_sdk::progress;

    #[pelton_sdk::batch_handler]
    fn import(events: &[Event]) -> Result<(), Error> {
        for (index, event) in events.iter().enumerate() {
            emit("imported", NewEvent::text("imported", event.text()?))?;
            if event.text()? == "bad" {
                return Err(Error::permanent("bad"));
            }
            progress::handled(index + 1);
        }
        Ok(())
    }

    #[test]
    fn what_was_handled_before_a_failure_is_kept() {
        let mut host = Host::new();
        let error = host.handle_batch::<import>(["a", "b", "bad", "c"].map(event)).expect_err("one is bad");
        assert_eq!(error, Error::permanent("bad"));
        assert_eq!(host.handled(), 2);
        assert_eq!(host.emitted("imported"), ["a", "b"].map(|text| NewEvent::text("imported", text)));
    }
}

mod by_hand {
    use super::*;
    use pelton_sdk::{BatchHandler, Handler};

    struct Single;
    impl Handler for Single {
        fn handle(event: Event) -> Result<(), Error> {
            emit("out", NewEvent::new(event.kind, event.payload))
        }
    }
    pelton_sdk::export!(Single);

    struct Bulk;
    impl BatchHandler for Bulk {
        fn handle_batch(events: Vec<Event>) -> Result<(), Error> {
            events.into_iter().try_for_each(Single::handle)
        }
    }
    pelton_sdk::export_batch!(Bulk);

    #[test]
    fn the_traits_serve_as_well() {
        let mut host = Host::new();
        host.handle::<Single>(event("1")).expect("handled");
        host.handle_batch::<Bulk>([event("2"), event("3")]).expect("handled");
        assert_eq!(host.emitted("out"), ["1", "2", "3"].map(|text| NewEvent::text("order.placed", text)));
    }
}
