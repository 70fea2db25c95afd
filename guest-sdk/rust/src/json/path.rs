//! Where in a JSON text something is wrong, as `customer.name` or `lines[2].amount`.
//!
//! `serde_json` tells line and column. The path to there is found by going through the text once more, and only when
//! something is wrong. To follow the path while reading, as the crate `serde_path_to_error` does, would cost every event a
//! copy of each of its names, and every module several times the bytes that this takes.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// The path to what `problem` is about. Empty if that is the whole text, or a field missing from it; and if the text is no
/// JSON, which a path would not explain.
pub(super) fn of(problem: &serde_json::Error, json: &[u8]) -> String {
    if !problem.is_data() {
        return String::new();
    }
    let mut path = at(json, problem.line(), problem.column());
    // A field that is missing has no place of its own: `serde_json` stands at the end of what lacks it.
    if !path.is_empty()
        && let Some(name) = problem.to_string().as_bytes().strip_prefix(b"missing field `")
    {
        push_name(&mut path, &name[..end_of(name, b'`')]);
    }
    path
}

/// The path to the value that is missing at the end of a JSON text.
#[cfg(feature = "std")]
pub(super) fn at_end(json: &[u8]) -> String {
    at(json, 1, json.len())
}

/// What an object or array that is still open has come to.
enum Step<'a> {
    /// The name of a member; none before the first one and after a comma.
    Member(Option<&'a [u8]>),
    Item(usize),
}

/// The path to the value which ends at this place, or right after it. Everything before was valid. Lines count from 1, and a
/// column is how many bytes of the line `serde_json` had read.
fn at(json: &[u8], line: usize, column: usize) -> String {
    let mut open = Vec::new();
    let (mut current_line, mut line_start, mut at) = (1, 0, 0);
    while at < json.len() && (current_line, at - line_start) < (line, column) {
        match json[at] {
            b'{' => open.push(Step::Member(None)),
            b'[' => open.push(Step::Item(0)),
            b'}' | b']' => drop(open.pop()),
            b',' => match open.last_mut() {
                Some(Step::Item(index)) => *index += 1,
                Some(Step::Member(name)) => *name = None,
                None => {}
            },
            b'"' => {
                let text = &json[at + 1..];
                let text = &text[..end_of(text, b'"')];
                at += 1 + text.len();
                // The first text after a brace or comma is the name.
                if let Some(Step::Member(name @ None)) = open.last_mut() {
                    *name = Some(text);
                }
            }
            b'\n' => (current_line, line_start) = (current_line + 1, at + 1),
            _ => {}
        }
        at += 1;
    }

    let mut path = String::new();
    for step in &open {
        match step {
            Step::Member(None) => {}
            Step::Member(Some(name)) => push_name(&mut path, name),
            Step::Item(index) => {
                path.push('[');
                path.push_str(&index.to_string());
                path.push(']');
            }
        }
    }
    path
}

/// How far it is to the first `quote` that is not escaped.
fn end_of(text: &[u8], quote: u8) -> usize {
    let mut at = 0;
    while at < text.len() && text[at] != quote {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    at.min(text.len())
}

/// Escape sequences stay as they are.
fn push_name(path: &mut String, name: &[u8]) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(core::str::from_utf8(name).unwrap_or("?"));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only read")]
    struct Order {
        customer: Customer,
        #[serde(default)]
        lines: Vec<Line>,
        #[serde(default)]
        stock: BTreeMap<String, (u8, bool)>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
    struct Customer {
        name: String,
        vat: Option<u32>,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only read")]
    struct Line {
        amount: u64,
    }

    #[track_caller]
    fn check(json: &str, path: &str) {
        let problem = serde_json::from_str::<Order>(json).expect_err("not an order");
        assert_eq!(of(&problem, json.as_bytes()), path, "{problem} in {json}");
    }

    #[test]
    fn a_value_of_another_type_is_named() {
        check(r#"{"customer":{"name":5}}"#, "customer.name");
        check(r#"{"customer":{"name":null,"vat":1}}"#, "customer.name");
        check(r#"{"customer":{"name":{"first":"Ada"}}}"#, "customer.name");
        check(r#"{ "customer" : { "name" : [ ] } }"#, "customer.name");
        check(r#"{"customer":{"vat":-1,"name":"Ada"}}"#, "customer.vat");
        check(r#"{"customer":"Ada"}"#, "customer");
        check(r#"{"customer":{"name":"Ada"},"lines":[{"amount":1},{"amount":2.5}]}"#, "lines[1].amount");
        check(r#"{"customer":{"name":"Ada"},"lines":[{"amount":1},7]}"#, "lines[1]");
        check(r#"{"lines":[7]}"#, "lines[0]");
    }

    #[test]
    fn a_missing_field_is_named_where_it_belongs() {
        check(r#"{"customer":{}}"#, "customer.name");
        check(r#"{"lines":[{"amount":1},{"count":2}]}"#, "lines[1].amount");
    }

    #[test]
    fn of_the_whole_there_is_no_path() {
        check("", "");
        check("5", "");
        check(r#""text""#, "");
        check("[]", "");
        check(r#"{"lines":[]}"#, "");
        check(r#"{"customer":{"name":"Ada"}} x"#, "");
    }

    #[test]
    fn an_unknown_field_is_named() {
        check(r#"{"customer":{"name":"Ada","nome":"Ada"}}"#, "customer.nome");
    }

    #[test]
    fn tuples_are_named_as_a_whole_if_they_are_too_short() {
        check(r#"{"customer":{"name":"Ada"},"stock":{"nails":[1]}}"#, "stock.nails");
        check(r#"{"customer":{"name":"Ada"},"stock":{"nails":[1,true],"nuts":[256,true]}}"#, "stock.nuts[0]");
    }

    #[test]
    fn of_broken_json_there_is_no_path() {
        check(r#"{"customer":{"name":"Ada"#, "");
        check(r#"{"customer":{"name":"A\qa"}}"#, "");
        check(r#"{"customer":{"name":"Ada",}}"#, "");
        check(r#"{"lines":[,]}"#, "");
    }

    #[test]
    fn quotes_and_braces_in_texts_are_text() {
        check(r#"{"customer":{"name":"}\"]{[,\\","vat":"x"}}"#, "customer.vat");
        check(r#"{"a \"quoted\" name":1,"customer":{"name":1}}"#, "customer.name");
    }

    #[test]
    fn lines_are_counted() {
        check("{\n  \"customer\": {\n    \"vat\": 1,\n    \"name\": true\n  }\n}\n", "customer.name");
        check("{\r\n\"customer\":\r\n{\r\n}\r\n}", "customer.name");
    }

    #[test]
    fn names_need_not_be_ascii() {
        check(r#"{"customer":{"name":"Ada"},"stock":{"søren 👋":[1,2]}}"#, "stock.søren 👋[1]");
        check(r#"{"customer":{"name":"Ada"},"stock":{"":[1,2]}}"#, "stock.[1]");
    }
}
