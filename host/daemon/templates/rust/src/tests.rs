//! `cargo test` runs these without WebAssembly: a mock stands in for the host.

use pelton_sdk::mock::Host;

use super::*;

fn visit(payload: &str) -> NewEvent {
    NewEvent::text("visit", payload).key("ada")
}

#[test]
fn visits_are_counted() -> Result<(), Error> {
    let mut host = Host::new().config("greeting", "Hej");
    host.handle::<greet>(visit(r#"{"name":"Ada"}"#))?;
    host.handle::<greet>(visit(r#"{"name":"Ada"}"#))?;

    let second = NewEvent::text("greeted", r#"{"text":"Hej, Ada! Visit 2."}"#).key("ada");
    assert_eq!(host.emitted("greetings")[1], second);
    assert_eq!(host.state("visits/ada"), Some(&b"2"[..]));
    Ok(())
}

#[test]
fn a_visit_without_a_name_is_refused_for_good() {
    let mut host = Host::new();
    let refused = host.handle::<greet>(visit(r#"{"nome":"Ada"}"#));

    assert!(matches!(refused, Err(Error::Permanent(_))), "{refused:?}");
    assert!(host.emitted("greetings").is_empty());
}
