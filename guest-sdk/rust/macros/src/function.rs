use proc_macro2::{TokenStream, TokenTree};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, Error, Ident, Result, Token, Type, Visibility, parenthesized};

/// What there is to know of a function to call it. Its body passes through unread, so `syn` needs not know expressions.
pub(crate) struct Function {
    pub(crate) visibility: Visibility,
    pub(crate) name: Ident,
    pub(crate) parameters: Vec<Type>,
    pub(crate) output: Type,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        input.call(Attribute::parse_outer)?;
        let visibility = input.parse()?;
        refuse_qualifiers(input)?;
        if !input.peek(Token![fn]) {
            return Err(input.error("this attribute goes on a function"));
        }
        input.parse::<Token![fn]>()?;
        let name: Ident = input.parse()?;
        if input.peek(Token![<]) {
            return Err(input.error("a handler has no generic parameters: the host knows one way to call it"));
        }
        let parameters;
        parenthesized!(parameters in input);
        let parameters = Punctuated::<Parameter, Token![,]>::parse_terminated(&parameters)?;
        if !input.peek(Token![->]) {
            return Err(Error::new(name.span(), "a handler returns `Result<(), pelton_sdk::Error>`"));
        }
        input.parse::<Token![->]>()?;
        let output = input.parse()?;
        input.parse::<TokenStream>()?;
        Ok(Self { visibility, name, parameters: parameters.into_iter().map(|parameter| parameter.0).collect(), output })
    }
}

fn refuse_qualifiers(input: ParseStream<'_>) -> Result<()> {
    for (found, word) in [
        (input.peek(Token![async]), "async"),
        (input.peek(Token![const]) && input.peek2(Token![fn]), "const"),
        (input.peek(Token![unsafe]), "unsafe"),
        (input.peek(Token![extern]), "extern"),
    ] {
        if found {
            return Err(input.error(format_args!("a handler is a plain function: remove `{word}`")));
        }
    }
    Ok(())
}

/// The type of a parameter.
struct Parameter(Type);

impl Parse for Parameter {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        input.call(Attribute::parse_outer)?;
        // The pattern is the function's own affair. It ends at the first colon that is not half of a `::`.
        while !input.peek(Token![:]) || input.peek(Token![::]) {
            if input.peek(Token![self]) {
                return Err(input.error("a handler is a function of its own, not a method"));
            }
            if input.peek(Token![::]) {
                input.parse::<Token![::]>()?;
            } else {
                input.parse::<TokenTree>()?;
            }
        }
        input.parse::<Token![:]>()?;
        input.parse().map(Self)
    }
}
