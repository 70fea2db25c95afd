//! The attributes of `pelton-sdk`, which re-exports them.

mod expand;
mod function;
#[cfg(test)]
mod tests;

use proc_macro::TokenStream;
use syn::parse::{Nothing, Parse};

use function::Function;

/// Makes a function the component's handler, for one event at a time. To be used once.
///
/// It takes, in any order, the event (`Event` or `&Event`) and its payload (any other type, which is read from JSON with
/// [`serde`]); either may be left out. A payload that does not fit is a permanent error that names what is wrong and
/// where, and the function is not called.
///
/// ```ignore
/// #[pelton_sdk::handler]
/// fn invoice(order: Order, event: &Event) -> Result<(), Error> {
///     emit("invoices", NewEvent::json("invoice.drafted", &draft(order))?.id(&event.id))
/// }
/// ```
///
/// The function stays a function, which tests can call. A type of the same name implements the trait `Handler`, for
/// `mock::Host::handle`.
///
/// [`serde`]: https://docs.rs/serde
#[proc_macro_attribute]
pub fn handler(arguments: TokenStream, function: TokenStream) -> TokenStream {
    apply(arguments, function, expand::handler)
}

/// Makes a function the component's handler, for many events at once. To be used once.
///
/// It takes the next events of one partition, in order and at least one, as `Vec<Event>` or `&[Event]`.
///
/// ```ignore
/// #[pelton_sdk::batch_handler]
/// fn import(events: Vec<Event>) -> Result<(), Error> {
///     for (index, event) in events.iter().enumerate() {
///         import_one(event)?;
///         progress::handled(index + 1);
///     }
///     Ok(())
/// }
/// ```
///
/// A type of the function's name implements the trait `BatchHandler`, for `mock::Host::handle_batch`.
#[proc_macro_attribute]
pub fn batch_handler(arguments: TokenStream, function: TokenStream) -> TokenStream {
    apply(arguments, function, expand::batch_handler)
}

/// The function as it is, with what `expand` makes of it or with the error.
fn apply(
    arguments: TokenStream,
    function: TokenStream,
    expand: fn(&Function) -> syn::Result<proc_macro2::TokenStream>,
) -> TokenStream {
    let added = syn::parse::<Nothing>(arguments)
        .map_err(|error| syn::Error::new(error.span(), "this attribute takes no arguments"))
        .and_then(|_| syn::parse::Parser::parse(Function::parse, function.clone()))
        .and_then(|function| expand(&function))
        .unwrap_or_else(syn::Error::into_compile_error);
    let mut output = function;
    output.extend(TokenStream::from(added));
    output
}
