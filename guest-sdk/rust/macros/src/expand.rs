use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, GenericArgument, Ident, PathArguments, Result, Type};

use crate::function::Function;

/// What a parameter of a handler is given.
enum Role<'a> {
    Event,
    BorrowedEvent,
    Payload(&'a Type),
    BorrowedPayload(&'a Type),
}

impl<'a> Role<'a> {
    /// The name decides, since a macro sees no types.
    fn of(parameter: &'a Type) -> Self {
        match parameter {
            Type::Reference(reference) if is_event(&reference.elem) => Self::BorrowedEvent,
            Type::Reference(reference) => Self::BorrowedPayload(&reference.elem),
            plain if is_event(plain) => Self::Event,
            plain => Self::Payload(plain),
        }
    }
}

pub(crate) fn handler(function: &Function) -> Result<TokenStream> {
    let Function { visibility, name, parameters, output } = function;
    // Of another hygiene than the function's name, which may be `event` or `payload`.
    let event = Ident::new("event", Span::mixed_site());
    let payload = Ident::new("payload", Span::mixed_site());

    let mut arguments = Vec::new();
    let (mut has_event, mut read_payload) = (false, None);
    for parameter in parameters {
        if is_many_events(parameter) {
            return Err(Error::new_spanned(parameter, MANY_EVENTS));
        }
        let role = Role::of(parameter);
        match &role {
            Role::Event | Role::BorrowedEvent => {
                if has_event {
                    return Err(Error::new_spanned(parameter, "a handler is given one event: remove this parameter"));
                }
                has_event = true;
            }
            Role::Payload(payload_type) | Role::BorrowedPayload(payload_type) => {
                if read_payload.is_some() {
                    return Err(Error::new_spanned(
                        parameter,
                        "an event has one payload: take the event with `event: &Event`, and one type for the payload",
                    ));
                }
                if !cfg!(feature = "json") {
                    return Err(Error::new_spanned(
                        parameter,
                        "a typed payload needs the feature `json` of pelton-sdk; without it, take `event: &Event`",
                    ));
                }
                read_payload = Some(quote_spanned! { payload_type.span() =>
                    let #payload: #payload_type = ::pelton_sdk::Event::json(&#event)?;
                });
            }
        }
        arguments.push(match role {
            Role::Event => quote!(#event),
            Role::BorrowedEvent => quote!(&#event),
            Role::Payload(_) => quote!(#payload),
            Role::BorrowedPayload(_) => quote!(&#payload),
        });
    }

    let call = quote_spanned!(output.span() => #name(#(#arguments),*));
    Ok(quote! {
        #[doc(hidden)]
        #[allow(non_camel_case_types)]
        #visibility enum #name {}

        impl ::pelton_sdk::Handler for #name {
            fn handle(#event: ::pelton_sdk::Event) -> ::core::result::Result<(), ::pelton_sdk::Error> {
                #read_payload
                #call
            }
        }

        ::pelton_sdk::export!(#name);
    })
}

pub(crate) fn batch_handler(function: &Function) -> Result<TokenStream> {
    const SIGNATURE: &str = "a batch handler takes one parameter, `Vec<Event>` or `&[Event]`";

    let Function { visibility, name, parameters, output } = function;
    let place = parameters.first().map_or(name.span(), Spanned::span);
    let events = Ident::new("events", Span::mixed_site().located_at(place));
    let argument = match parameters.as_slice() {
        [Type::Reference(reference)] if is_event(&reference.elem) => {
            return Err(Error::new_spanned(reference, ONE_EVENT));
        }
        [plain] if is_event(plain) => return Err(Error::new_spanned(plain, ONE_EVENT)),
        [Type::Reference(_)] => quote!(&#events),
        [_] => quote!(#events),
        [] => return Err(Error::new(name.span(), SIGNATURE)),
        [_, second, ..] => return Err(Error::new_spanned(second, SIGNATURE)),
    };

    let call = quote_spanned!(output.span() => #name(#argument));
    Ok(quote! {
        #[doc(hidden)]
        #[allow(non_camel_case_types)]
        #visibility enum #name {}

        impl ::pelton_sdk::BatchHandler for #name {
            fn handle_batch(
                #events: ::pelton_sdk::__private::Vec<::pelton_sdk::Event>,
            ) -> ::core::result::Result<(), ::pelton_sdk::Error> {
                #call
            }
        }

        ::pelton_sdk::export_batch!(#name);
    })
}

const ONE_EVENT: &str = "a batch handler takes `Vec<Event>` or `&[Event]`; for one event at a time use `#[handler]`";
const MANY_EVENTS: &str = "a handler takes one event at a time; for many at once use `#[batch_handler]`";

/// Whether this is what a batch handler takes.
fn is_many_events(parameter: &Type) -> bool {
    match parameter {
        Type::Reference(reference) => matches!(&*reference.elem, Type::Slice(slice) if is_event(&slice.elem)),
        Type::Path(path) => path.path.segments.last().is_some_and(|last| {
            last.ident == "Vec"
                && matches!(&last.arguments, PathArguments::AngleBracketed(arguments)
                    if matches!(arguments.args.first(), Some(GenericArgument::Type(item)) if is_event(item)))
        }),
        _ => false,
    }
}

/// Whether a type is named `Event`, in whatever module.
fn is_event(plain: &Type) -> bool {
    let Type::Path(path) = plain else { return false };
    path.path.segments.last().is_some_and(|last| last.ident == "Event" && last.arguments.is_none())
}
