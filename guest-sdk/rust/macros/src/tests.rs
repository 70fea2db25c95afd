use crate::expand;
use crate::function::Function;

#[cfg(feature = "json")]
#[track_caller]
fn accepts(expand: fn(&Function) -> syn::Result<proc_macro2::TokenStream>, function: &str, call: &str) {
    let expanded = syn::parse_str(function).and_then(|function| expand(&function)).expect("a handler").to_string();
    assert!(expanded.contains(call), "no {call} in {expanded}");
}

#[track_caller]
fn refuses(expand: fn(&Function) -> syn::Result<proc_macro2::TokenStream>, function: &str, message: &str) {
    let error = syn::parse_str(function).and_then(|function| expand(&function)).expect_err("no handler");
    assert!(error.to_string().contains(message), "{error}");
}

#[cfg(feature = "json")]
#[test]
fn parameters_come_in_any_order() {
    let handler = expand::handler;
    accepts(handler, "fn f(event: &Event) -> Result<(), Error> {}", "f (& event)");
    accepts(handler, "pub fn f(event: Event) -> Result<(), Error> {}", "f (event)");
    accepts(handler, "fn f(_: &pelton_sdk::Event, order: Order) -> Result<(), Error> {}", "f (& event , payload)");
    accepts(handler, "fn f(order: Order, Event { id, .. }: Event) -> Result<(), Error> {}", "f (payload , event)");
    accepts(handler, "fn f(model::Order { id, .. }: model::Order<'_>,) -> Result<(), Error> {}", "f (payload)");
    accepts(handler, "pub(crate) fn f(mut order: Vec<Order>) -> Result<(), Error> where {}", "f (payload)");
    accepts(handler, "/// Documented.\n#[inline]\nfn f(#[allow(unused)] order: &Order) -> Result {}", "f (& payload)");
    accepts(handler, "fn f() -> Result<(), Error> {}", "f ()");
    accepts(expand::batch_handler, "fn f(events: Vec<Event>) -> Result<(), Error> {}", "f (events)");
    accepts(expand::batch_handler, "fn f(events: &[Event]) -> Result<(), Error> {}", "f (& events)");
}

#[cfg(feature = "json")]
#[test]
fn the_payload_is_read_as_the_type_that_is_asked_for() {
    let read = "let payload : Order = :: pelton_sdk :: Event :: json (& event) ? ;";
    accepts(expand::handler, "fn f(order: Order) -> Result<(), Error> {}", read);
    accepts(expand::handler, "fn f(order: &Order, event: Event) -> Result<(), Error> {}", read);
}

#[cfg(feature = "json")]
#[test]
fn wrong_signatures_are_told_what_is_right() {
    let handler = expand::handler;
    refuses(handler, "struct Greeter;", "goes on a function");
    refuses(handler, "impl Greeter { fn f() -> R {} }", "goes on a function");
    refuses(handler, "async fn f() -> R {}", "remove `async`");
    refuses(handler, "pub unsafe fn f() -> R {}", "remove `unsafe`");
    refuses(handler, "const fn f() -> R {}", "remove `const`");
    refuses(handler, "extern \"C\" fn f() -> R {}", "remove `extern`");
    refuses(handler, "fn f<T>(order: T) -> R {}", "no generic parameters");
    refuses(handler, "fn f(&self, event: Event) -> R {}", "not a method");
    refuses(handler, "fn f(self) -> R {}", "not a method");
    refuses(handler, "fn f(event: Event) {}", "returns `Result<(), pelton_sdk::Error>`");
    refuses(handler, "fn f(a: Event, b: &Event) -> R {}", "one event");
    refuses(handler, "fn f(a: Order, b: Customer) -> R {}", "one payload");
    refuses(handler, "fn f(events: Vec<Event>) -> R {}", "use `#[batch_handler]`");
    refuses(handler, "fn f(events: &[Event]) -> R {}", "use `#[batch_handler]`");
    refuses(expand::batch_handler, "fn f(event: Event) -> R {}", "use `#[handler]`");
    refuses(expand::batch_handler, "fn f(event: &Event) -> R {}", "use `#[handler]`");
    refuses(expand::batch_handler, "fn f() -> R {}", "`Vec<Event>` or `&[Event]`");
    refuses(expand::batch_handler, "fn f(events: Vec<Event>, more: u8) -> R {}", "`Vec<Event>` or `&[Event]`");
}

#[cfg(not(feature = "json"))]
#[test]
fn a_typed_payload_without_json_is_told_the_feature() {
    refuses(expand::handler, "fn f(order: Order) -> R {}", "needs the feature `json`");
}
