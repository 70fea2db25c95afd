//! What is written as JSON is read back as it was, or refused.

use std::collections::{BTreeMap, HashMap};

use pelton_sdk::mock::Host;
use pelton_sdk::{Error, NewEvent, state};
use serde::Serialize;

/// Numbers from all over the range, the same in every run.
fn floats() -> impl Iterator<Item = f64> {
    let mut seed = 1_u64;
    std::iter::repeat_with(move || {
        // Knuth's generator. Its low bits are worth little, so they come from another step.
        let mut step = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed >> 32
        };
        f64::from_bits(step() << 32 | step())
    })
    .filter(|number| number.is_finite())
}

#[test]
fn a_float_is_read_back_as_it_was_written() {
    let written: Vec<f64> =
        floats().take(10_000).chain([0.1 + 0.2, f64::MIN_POSITIVE, f64::MAX, 5e-324, -0.0]).collect();
    let mut host = Host::new();
    let read: Option<Vec<f64>> = host
        .call(|| {
            state::set_json("k", &written)?;
            state::get_json("k")
        })
        .expect("finite numbers have a JSON form");
    let others = written.iter().zip(read.expect("there is one")).filter(|(a, b)| a.to_bits() != b.to_bits());
    assert_eq!(others.collect::<Vec<_>>(), []);
}

#[derive(Serialize)]
enum Shape {
    Nothing,
    Circle(f64),
    Line(f32, f32),
    Box { width: f64, height: Option<f64> },
}

#[derive(Serialize)]
struct Metres(f64);

#[derive(Serialize)]
struct Pair(u8, f64);

#[derive(Serialize)]
struct Drawing {
    name: &'static str,
    shapes: Vec<Shape>,
    #[serde(flatten)]
    more: BTreeMap<&'static str, (Metres, Pair)>,
}

#[track_caller]
fn refused<T: Serialize>(value: &T) -> String {
    let Err(Error::Permanent(reason)) = NewEvent::json("k", value) else { panic!("expected a permanent error") };
    let problem = reason.strip_prefix("payload of new event of kind \"k\": ").expect("names the event");
    problem
        .replace(": JSON has no such number; leave it out, or make it an Option", "")
        .replace("expected a finite number, found ", "")
}

#[test]
fn a_float_that_is_no_number_is_refused_where_it_is() {
    let (nan, infinite) = (f64::NAN, f64::INFINITY);
    assert_eq!(
        NewEvent::json("k", &nan).expect_err("no number"),
        Error::permanent(
            "payload of new event of kind \"k\": expected a finite number, found NaN: JSON has no such number; leave it out, \
             or make it an Option"
        )
    );
    assert_eq!(refused(&-infinite), "an infinity");
    assert_eq!(refused(&f32::INFINITY), "an infinity");
    assert_eq!(refused(&Metres(nan)), "NaN");
    assert_eq!(refused(&Some(nan)), "NaN");
    assert_eq!(refused(&[1.0, 2.0, nan]), "[2]: NaN");
    assert_eq!(refused(&Pair(1, nan)), "[1]: NaN");
    assert_eq!(refused(&HashMap::from([("a \"b\"", [nan])])), "a \\\"b\\\"[0]: NaN");

    let drawing = |shape| Drawing { name: "NaN, [null", shapes: vec![Shape::Nothing, shape], more: BTreeMap::new() };
    assert_eq!(refused(&drawing(Shape::Circle(nan))), "shapes[1].Circle: NaN");
    assert_eq!(refused(&drawing(Shape::Line(0.0, f32::NAN))), "shapes[1].Line[1]: NaN");
    assert_eq!(refused(&drawing(Shape::Box { width: nan, height: None })), "shapes[1].Box.width: NaN");
    assert_eq!(refused(&drawing(Shape::Box { width: 1.0, height: Some(nan) })), "shapes[1].Box.height: NaN");
    let more = BTreeMap::from([("a", (Metres(1.0), Pair(1, 2.0))), ("b", (Metres(nan), Pair(1, 2.0)))]);
    assert_eq!(refused(&Drawing { more, ..drawing(Shape::Nothing) }), "b[0]: NaN");

    let error = Host::new().call(|| state::set_json("k", &[nan])).expect_err("no number");
    assert!(error.reason().starts_with("state \"k\": [0]: expected a finite number, found NaN"), "{error}");
}

#[test]
fn all_else_is_written_as_it_was() {
    let more = BTreeMap::from([("m", (Metres(1.5), Pair(1, -0.5)))]);
    let shapes = vec![
        Shape::Nothing,
        Shape::Circle(1e300),
        Shape::Line(0.1, -0.0),
        Shape::Box { width: 5e-324, height: None },
        Shape::Box { width: 1.0, height: Some(2.0) },
    ];
    let drawing = Drawing { name: "é\n\"", shapes, more };
    let written = NewEvent::json("k", &drawing).expect("has a JSON form").payload;
    assert_eq!(String::from_utf8(written), serde_json::to_string(&drawing).map_err(|_| unreachable!()));

    let mixed = (u64::MAX, i64::MIN, 'x', (), None::<u8>, [true], serde_json::json!({ "a": [null, 1.5, { "b": 2 }] }));
    let mixed = (mixed, u128::MAX, HashMap::from([(7, "x")]), serde_json::Number::from_f64(2.5), Box::new([0u8; 3]));
    let written = NewEvent::json("k", &mixed).expect("has a JSON form").payload;
    assert_eq!(String::from_utf8(written), serde_json::to_string(&mixed).map_err(|_| unreachable!()));
}

#[test]
fn what_else_has_no_json_form_is_named_too() {
    assert_eq!(refused(&("x", BTreeMap::from([((1, 2), 3)]))), "[1]: key must be a string");
}
