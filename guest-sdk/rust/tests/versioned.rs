//! State that outlives versions of the handler, forwards and backwards.

use pelton_sdk::Error;
use pelton_sdk::mock::Host;
use pelton_sdk::state::{self, Older, Versioned};
use serde::{Deserialize, Serialize};

/// A bare number, from before there were versions.
#[derive(Serialize, Deserialize)]
struct V0(u64);
impl Versioned for V0 {
    const VERSION: u32 = 0;
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct V1 {
    count: u64,
}
impl Versioned for V1 {
    const VERSION: u32 = 1;
    fn upgrade(older: Older<'_>) -> Result<Self, Error> {
        let V0(count) = older.read()?;
        Ok(Self { count })
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct V2 {
    count: u64,
    unit: String,
}
impl Versioned for V2 {
    const VERSION: u32 = 2;
    const READABLE_FROM: u32 = 1;
    fn upgrade(older: Older<'_>) -> Result<Self, Error> {
        let V1 { count } = older.read()?;
        Ok(Self { count, unit: "pieces".to_owned() })
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct V3 {
    counts: Vec<u64>,
}
impl Versioned for V3 {
    const VERSION: u32 = 3;
    fn upgrade(older: Older<'_>) -> Result<Self, Error> {
        let V2 { count, .. } = older.read()?;
        Ok(Self { counts: vec![count] })
    }
}

/// The code of the same version, with no step to it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct WithoutSteps {
    count: u64,
}
impl Versioned for WithoutSteps {
    const VERSION: u32 = 2;
}

fn read<T: Versioned>(stored: &str) -> Result<T, Error> {
    Host::new().stored("k", stored).call(|| state::get_versioned("k")).map(|value| value.expect("there is one"))
}

#[track_caller]
fn refused<T: Versioned>(stored: &str) -> Error {
    read::<T>(stored).err().expect("cannot be read")
}

#[test]
fn what_is_written_is_an_envelope() {
    let mut host = Host::new();
    host.call(|| state::set_versioned("k", &V2 { count: 5, unit: "crates".to_owned() })).expect("written");
    let expected = r#"{"version":2,"readable_from":1,"value":{"count":5,"unit":"crates"}}"#;
    assert_eq!(host.state("k"), Some(expected.as_bytes()));

    host.call(|| state::set_versioned("k", &V3 { counts: vec![5] })).expect("written");
    assert_eq!(host.state("k"), Some(&br#"{"version":3,"readable_from":3,"value":{"counts":[5]}}"#[..]));
}

#[test]
fn nothing_is_nothing() {
    assert_eq!(Host::new().call(|| state::get_versioned::<V3>("k")), Ok(None));
}

#[test]
fn a_value_of_the_same_version_is_read_as_it_is() {
    assert_eq!(read(r#"{"version":1,"readable_from":1,"value":{"count":5}}"#), Ok(V1 { count: 5 }));
    assert_eq!(read(r#" { "value" : {"count":5}, "readable_from" : 1, "version" : 1 } "#), Ok(V1 { count: 5 }));
}

#[test]
fn an_older_value_goes_through_the_steps_in_order() {
    let pieces = |count| Ok(V2 { count, unit: "pieces".to_owned() });
    assert_eq!(read(r#"{"version":1,"readable_from":1,"value":{"count":5}}"#), pieces(5));
    assert_eq!(read(r#"{"version":1,"readable_from":1,"value":{"count":5}}"#), Ok(V3 { counts: vec![5] }));
    assert_eq!(
        read(r#"{"version":2,"readable_from":1,"value":{"count":5,"unit":"crates"}}"#),
        Ok(V3 { counts: vec![5] })
    );
}

#[test]
fn a_value_from_before_there_were_versions_is_version_0() {
    assert_eq!(read("5"), Ok(V1 { count: 5 }));
    assert_eq!(read("5"), Ok(V3 { counts: vec![5] }));
    assert_eq!(
        refused::<V1>(r#""five""#).reason(),
        "state \"k\": invalid type: string \"five\", expected u64 at line 1 column 6"
    );
}

#[test]
fn a_newer_value_is_read_as_far_as_it_says_it_can_be() {
    assert_eq!(read(r#"{"version":2,"readable_from":1,"value":{"count":5,"unit":"crates"}}"#), Ok(V1 { count: 5 }));
    assert_eq!(
        read(r#"{"version":9,"readable_from":2,"value":{"count":5,"unit":"x","new":0}}"#),
        Ok(V2 { count: 5, unit: "x".to_owned() })
    );
}

#[test]
fn a_newer_value_that_cannot_be_read_waits_for_newer_code() {
    let expected = "state \"k\": written by version 3 of its format, which code before version 3 cannot read; this code has \
                    version 2: go forward to the newer handler, or reset the state";
    assert_eq!(refused::<V2>(r#"{"version":3,"readable_from":3,"value":{"counts":[5]}}"#), Error::transient(expected));
}

#[test]
fn what_no_step_leads_from_is_refused_for_good() {
    assert_eq!(
        refused::<WithoutSteps>(r#"{"version":1,"readable_from":1,"value":{"count":5}}"#),
        Error::permanent("state \"k\": written by version 1 of its format, and no step leads to version 2")
    );
    let unversioned = Error::permanent("state \"k\": not a versioned value, and no step leads from version 0");
    assert_eq!(refused::<WithoutSteps>("5"), unversioned);
    assert_eq!(refused::<WithoutSteps>(r#"{"version":2,"value":{"count":5}}"#), unversioned);
    for no_json in ["not JSON", ""] {
        let error = refused::<WithoutSteps>(no_json);
        assert!(
            matches!(error, Error::Permanent(_)) && error.reason().starts_with("state \"k\": not JSON: "),
            "{error}"
        );
    }
}

#[test]
fn what_breaks_the_rule_of_envelopes_is_version_0() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Any(serde_json::Value);
    impl Versioned for Any {
        const VERSION: u32 = 0;
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Kept(serde_json::Value);
    impl Versioned for Kept {
        const VERSION: u32 = 1;
        fn upgrade(older: Older<'_>) -> Result<Self, Error> {
            older.read().map(|Any(value)| Self(value))
        }
    }

    for plain in [
        r#"{"version":2,"readable_from":0,"value":{"count":5}}"#,
        r#"{"version":0,"readable_from":0,"value":{"count":5}}"#,
        r#"{"version":2,"readable_from":3,"value":{"count":5}}"#,
        r#"{"version":4294967296,"readable_from":1,"value":{"count":5}}"#,
        r#"{"version":1.5,"readable_from":1,"value":{"count":5}}"#,
        r#"{"version":true,"readable_from":true,"value":{"count":5}}"#,
        r#"{"version":"1","readable_from":"1","value":{"count":5}}"#,
        r#"{"version":-1,"readable_from":-1,"value":{"count":5}}"#,
        r#"{"version":2,"readable_from":1}"#,
        r#"[2,1,{"count":5}]"#,
        "null",
    ] {
        let unversioned = "state \"k\": not a versioned value, and no step leads from version 0";
        assert_eq!(refused::<WithoutSteps>(plain), Error::permanent(unversioned), "{plain}");
        assert_eq!(read(plain), Ok(Kept(serde_json::from_str(plain).expect("JSON"))), "{plain}");
    }
    for version in ["4294967295", "1.0", "1e0"] {
        let stored = format!(r#"{{"version":{version},"readable_from":1,"value":{{"count":5}}}}"#);
        assert_eq!(read(&stored), Ok(V1 { count: 5 }), "{version}");
    }
}

#[test]
#[should_panic(expected = "the step is wrong")]
fn a_panic_in_a_step_is_a_mistake() {
    #[derive(Serialize, Deserialize)]
    struct Wrong;
    impl Versioned for Wrong {
        const VERSION: u32 = 2;
        fn upgrade(_: Older<'_>) -> Result<Self, Error> {
            panic!("the step is wrong")
        }
    }
    drop(read::<Wrong>(r#"{"version":1,"readable_from":1,"value":{"count":5}}"#));
}

#[test]
fn a_value_that_does_not_fit_its_version_is_refused_by_name_and_path() {
    assert_eq!(
        refused::<V1>(r#"{"version":1,"readable_from":1,"value":{"count":"five"}}"#),
        Error::permanent("state \"k\": count: invalid type: string \"five\", expected u64 at line 1 column 54")
    );
    assert_eq!(
        refused::<V1>(r#"{"value":7,"version":1,"readable_from":1}"#),
        Error::permanent("state \"k\": invalid type: integer `7`, expected struct V1 at line 1 column 10")
    );
    assert_eq!(
        refused::<V3>(r#"{"version":3,"readable_from":3,"value":{}}"#),
        Error::permanent("state \"k\": counts: missing field `counts` at line 1 column 41")
    );
}

/// Errors name what the handler has, not what it is wrapped in.
#[test]
fn a_member_called_value_is_named() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Price {
        value: f64,
    }
    impl Versioned for Price {
        const VERSION: u32 = 1;
    }
    assert_eq!(
        refused::<Price>(r#"{"version":1,"readable_from":1,"value":{"value":"x"}}"#),
        Error::permanent("state \"k\": value: invalid type: string \"x\", expected f64 at line 1 column 51")
    );
    let error = Host::new().call(|| state::set_versioned("k", &Price { value: f64::NAN })).expect_err("no number");
    assert!(error.reason().starts_with("state \"k\": value: expected a finite number, found NaN"), "{error}");
}

#[test]
fn steps_may_be_skipped_by_hand_but_not_by_mistake() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Hasty {
        counts: Vec<u64>,
    }
    impl Versioned for Hasty {
        const VERSION: u32 = 3;
        fn upgrade(older: Older<'_>) -> Result<Self, Error> {
            match older.version() {
                1 => older.read().map(|V1 { count }| Self { counts: vec![count] }),
                _ => older.read().map(|V1 { count }| Self { counts: vec![count, 0] }),
            }
        }
    }
    assert!(read::<Hasty>(r#"{"version":1,"readable_from":1,"value":{"count":5}}"#).is_ok());
    assert_eq!(
        refused::<Hasty>(r#"{"version":2,"readable_from":1,"value":{"count":5,"unit":"crates"}}"#),
        Error::permanent("state \"k\": written by version 2 of its format, and no step leads to version 3")
    );
}

#[test]
fn plain_json_names_the_path_too() {
    let error = Host::new().stored("k", r#"{"count":true}"#).call(|| state::get_json::<V1>("k")).expect_err("no count");
    assert_eq!(error.reason(), "state \"k\": count: invalid type: boolean `true`, expected u64 at line 1 column 13");
}
