//! What a handler is granted: secrets, origins, limits, and when an instance makes way for a fresh one.

use std::time::Duration;

use pelton_sandbox::{HttpGrant, Limits, Origin, Recycle};

use super::{Config, accepts, parse, refuses, refuses_handler};
use crate::config::HandlerConfig;

#[track_caller]
fn handler(fields: &str) -> HandlerConfig {
    let text = format!("[handlers.invoice]\nmodule = \"invoice.wasm\"\n{fields}");
    accepts(&text).handlers.remove("invoice").expect("declared")
}

// --- Secrets ----------------------------------------------------------------------------------------------------

#[test]
fn secrets_are_texts_that_nobody_is_shown() {
    let handler =
        handler("config = { region = \"eu\" }\nsecrets = { api_key = \"s3cret-${REGION}\", b = \"${NONE:-x}\" }\n");
    let secrets: Vec<_> = handler.secrets.iter().map(|(name, secret)| (name.as_str(), secret.reveal())).collect();
    assert_eq!(secrets, [("api_key", "s3cret-eu"), ("b", "x")]);
    let debug = format!("{handler:?}");
    assert!(debug.contains("(\"api_key\", ***)") && !debug.contains("s3cret"), "{debug}");
}

#[test]
fn a_name_is_a_secret_or_configuration_and_not_both() {
    refuses_handler(
        "config = { a = \"1\", b = \"2\" }\n[handlers.invoice.secrets]\nc = \"s3cret\"\nb = \"s3cret\"\n",
        &[(
            4,
            "handlers.invoice.secrets.b: config has this name too, and a handler reads both through one interface; remove it from one of them",
        )],
    );
}

#[test]
fn a_secret_that_is_no_text_is_not_shown() {
    let hidden = "(what is in secrets is not shown)";
    refuses_handler(
        "[handlers.invoice.secrets]\na = 5309\nb = [\"s3cret\"]\nc = { d = \"s3cret\" }\nd = true\n",
        &[
            (2, &format!("handlers.invoice.secrets.a: expected a string, found an integer {hidden}")),
            (3, &format!("handlers.invoice.secrets.b: expected a string, found an array {hidden}")),
            (4, &format!("handlers.invoice.secrets.c: expected a string, found a table {hidden}")),
            (5, &format!("handlers.invoice.secrets.d: expected a string, found a boolean {hidden}")),
        ],
    );
    refuses_handler(
        "secrets = \"s3cret\"\n",
        &[(1, &format!("handlers.invoice.secrets: expected a table of strings, found a string {hidden}"))],
    );
}

#[test]
fn a_secret_that_cannot_be_filled_in_is_not_shown() {
    refuses_handler(
        "[handlers.invoice.secrets]\na = \"s3cret-${NONE}\"\nb = \"s3cret-${REGION\"\nc = \"${s3-cret}\"\n",
        &[
            (
                2,
                "handlers.invoice.secrets.a: environment variable NONE is not set; set it, or give a default: ${NONE:-…}",
            ),
            (3, r#"handlers.invoice.secrets.b: "${" without "}"; write ${NAME} or ${NAME:-default}"#),
            (4, r#"handlers.invoice.secrets.c: "${…}" holds no name of a variable; write ${NAME} or ${NAME:-default}"#),
        ],
    );
}

#[test]
fn a_syntax_error_shows_nothing_of_the_file() {
    for value in
        ["s3cret", "\"s3cret", "'s3cret", "\"\\s3cret\"", "\"s3cret\" s3cret", "2026-s3cret", "0xs3cret", "[s3cret", ""]
    {
        let text = format!("[handlers.invoice]\nmodule = \"invoice.wasm\"\nsecrets = {{ api_key = {value} }}\n");
        let errors = parse(&text).expect_err(value);
        assert!(!format!("{errors} {errors:?}").contains("s3"), "{errors}");
        assert!(errors.faults.iter().all(|fault| (3..=4).contains(&fault.line)), "{errors}");
    }
}

// --- What is allowed ----------------------------------------------------------------------------------------------

#[test]
fn nothing_is_allowed_that_is_not_named() {
    let handler = handler("");
    assert_eq!((handler.http, handler.clocks, handler.random), (HttpGrant::None, false, false));
    assert!(handler.emit.is_empty() && handler.secrets.is_empty());
}

#[test]
fn clocks_and_randomness_are_allowed_one_by_one() {
    let handler = handler("allow = { clocks = true, random = false }\n");
    assert_eq!((handler.clocks, handler.random), (true, false));
    refuses_handler(
        "allow = { clocks = \"yes\", random = 1 }\n",
        &[
            (1, r#"handlers.invoice.allow.clocks: expected true or false, found the string "yes""#),
            (1, "handlers.invoice.allow.random: expected true or false, found the integer 1"),
        ],
    );
}

#[test]
fn origins_are_named_one_by_one() {
    let of = |list: &str| handler(&format!("allow = {{ http = {list} }}\n")).http;
    assert_eq!(of("[]"), HttpGrant::Origins(Vec::new()), "it loads, and every request is denied");
    let origin = |tls, host: &str, port, private| Origin { tls, host: host.into(), port, private };
    assert_eq!(
        of(r#"["https://API.stripe.com", "http://127.0.0.1:8080", "HTTP://[::0:1]", "https://a_b.${REGION}.x:444/",
            { origin = "https://billing.internal", private = true }, { origin = "https://xn--bcher-kva.example" }]"#),
        HttpGrant::Origins(vec![
            origin(true, "api.stripe.com", 443, false),
            origin(false, "127.0.0.1", 8080, false),
            origin(false, "::1", 80, false),
            origin(true, "a_b.eu.x", 444, false),
            origin(true, "billing.internal", 443, true),
            origin(true, "xn--bcher-kva.example", 443, false),
        ])
    );
}

/// That an origin is refused with these words.
#[track_caller]
fn refuses_origin(origin: &str, fault: &str) {
    let expected = format!("handlers.invoice.allow.http: {fault}");
    refuses_handler(&format!("allow = {{ http = [{origin:?}] }}\n"), &[(1, &expected)]);
}

#[test]
fn an_origin_has_a_scheme_and_a_host() {
    let expected = r#"expected an origin such as "https://api.example.com" or "http://127.0.0.1:8080""#;
    refuses_origin("", &format!("{expected}, found \"\""));
    refuses_origin("api.stripe.com", &format!("{expected}, found \"api.stripe.com\""));
    refuses_origin("me:s3cret@api.stripe.com", &format!("{expected}, found \"…@api.stripe.com\""));
    refuses_origin("ftp://example.com", r#"expected http or https, found "ftp" in "ftp://example.com""#);
    refuses_origin("*", &format!("{expected}, found \"*\""));
    refuses_origin("https://", r#"expected a host after "://", found "https://""#);
    refuses_origin("https://:443", r#"expected a host after "://", found "https://:443""#);
}

#[test]
fn an_origin_has_no_wildcard() {
    refuses_origin(
        "https://*.stripe.com",
        r#"expected the name of one host: there are no wildcards, each origin is named, found "https://*.stripe.com""#,
    );
}

#[test]
fn an_origin_has_no_path_query_or_fragment_and_none_is_shown() {
    let write = r#"write "https://api.stripe.com""#;
    refuses_origin(
        "https://api.stripe.com/v1",
        &format!(r#"expected no path, query or fragment, found "https://api.stripe.com/v1"; {write}"#),
    );
    for tail in ["?key=s3cret", "#s3cret"] {
        refuses_origin(
            &format!("https://api.stripe.com:443{tail}"),
            &format!(r#"expected no path, query or fragment, found "https://api.stripe.com:443…"; {write}"#),
        );
    }
}

#[test]
fn an_origin_has_no_password_and_none_is_shown() {
    refuses_origin(
        "https://me:s3cret@api.stripe.com",
        "expected an origin without user name and password; they belong into secrets, and from there into a header",
    );
}

#[test]
fn a_host_is_written_in_one_way_only() {
    let name = "expected a host of letters, digits, '-' and '_' between dots";
    for bad in ["a..b", "example.com.", "-a.com", "a b", "a%2eb", "a\\b", &"x".repeat(64)] {
        let origin = format!("https://{bad}");
        refuses_origin(&origin, &format!("{name}, found {origin:?}"));
    }
    let address = "expected an IPv4 address as four numbers";
    for bad in ["127.1", "2130706433", "0x7f000001", "1.2.3.256", "010.0.0.1", "a.7"] {
        let origin = format!("http://{bad}");
        refuses_origin(&origin, &format!("{address}, found {origin:?}"));
    }
    refuses_origin(
        "https://bücher.example",
        r#"expected a host in ASCII; write an international name in its "xn--" form, found "https://bücher.example""#,
    );
    refuses_origin(
        "http://::1",
        r#"expected an IPv6 address in brackets, as in "http://[::1]:8080", found "http://::1""#,
    );
    let zone = "expected an IPv6 address in brackets, without a zone";
    refuses_origin("http://[fe80::1%eth0]", &format!("{zone}, found \"http://[fe80::1%eth0]\""));
    refuses_origin("http://[::1", r#"expected "]" after an IPv6 address, found "http://[::1""#);
    refuses_origin("http://[::1]8080", r#"expected ":" and a port after "]", found "http://[::1]8080""#);
}

#[test]
fn a_port_is_a_number_from_1_on() {
    for bad in ["", "0", "65536", "+80", "http"] {
        let origin = format!("https://example.com:{bad}");
        refuses_origin(&origin, &format!("expected a port from 1 to 65535, found {origin:?}"));
    }
}

#[test]
fn an_origin_is_named_once() {
    refuses_handler(
        "[handlers.invoice.allow]\nhttp = [\n\"https://a.example\",\n\"http://a.example\",\n{ origin = \"https://A.example:443/\", private = true },\n]\n",
        &[(5, r#"handlers.invoice.allow.http: "https://a.example" stands there twice; remove one"#)],
    );
}

#[test]
fn a_list_of_origins_holds_texts_and_tables() {
    refuses_handler(
        "allow = { http = \"https://a.example\" }\n",
        &[(
            1,
            r#"handlers.invoice.allow.http: expected a list of origins such as ["https://api.example.com"], found the string "https://a.example""#,
        )],
    );
    refuses_handler(
        "[handlers.invoice.allow]\nhttp = [7,\n{ private = true },\n{ origin = 7 },\n{ origin = \"https://a.example\", port = 7 },\n\"${NONE}\"]\n",
        &[
            (2, "handlers.invoice.allow.http[0]: expected a string or a table, found the integer 7"),
            (3, r#"handlers.invoice.allow.http[1]: origin is missing; add origin = "https://api.example.com""#),
            (4, "handlers.invoice.allow.http[2].origin: expected a string, found the integer 7"),
            (5, r#"unknown field "port" in [handlers.invoice.allow.http[3]]; expected one of: origin, private"#),
            (
                6,
                "handlers.invoice.allow.http[4]: environment variable NONE is not set; set it, or give a default: ${NONE:-…}",
            ),
        ],
    );
}

// --- Limits and instances -----------------------------------------------------------------------------------------

#[test]
fn every_limit_has_its_default_and_can_be_set() {
    let usual = handler("");
    assert_eq!((usual.limits, usual.recycle), (Limits::default(), Recycle::default()));
    let set = handler(
        "[handlers.invoice.limits]\nmemory = \"128MiB\"\ntable = 7\nstack = \"256KiB\"\ntimeout = \"1m\"\noutput = \"1KiB\"\nlog_rate = 9\ninstances = 3\nhttp_body = \"1GiB\"\n\
         [handlers.invoice.instances]\nreuse = 2\nage = \"90s\"\nmemory = \"100MiB\"\n",
    );
    let limits = Limits {
        memory_bytes: 128 << 20,
        table_elements: 7,
        stack_bytes: 256 << 10,
        timeout: Duration::from_secs(60),
        output_bytes: 1024,
        log_lines: 9,
        instances: 3,
        http_body_bytes: 1 << 30,
    };
    assert_eq!(set.limits, limits);
    assert_eq!(set.recycle, Recycle { calls: 2, age: Duration::from_secs(90), memory_bytes: 100 << 20 });
}

#[test]
fn a_limit_out_of_bounds_is_refused_with_the_bounds() {
    refuses_handler(
        "[handlers.invoice.limits]\ntable = 1_000_001\nstack = \"32KiB\"\nlog_rate = 0\ninstances = -1\nhttp_body = \"2GiB\"\n",
        &[
            (2, "handlers.invoice.limits.table: expected 1 to 1000000, found 1000001"),
            (3, r#"handlers.invoice.limits.stack: expected "64KiB" to "8MiB", found "32KiB""#),
            (4, "handlers.invoice.limits.log_rate: expected 1 to 1000000, found 0"),
            (5, "handlers.invoice.limits.instances: expected 0 to 4294967295, found -1"),
            (6, r#"handlers.invoice.limits.http_body: expected at most "1GiB", found "2GiB""#),
        ],
    );
    refuses_handler(
        "limits = { stack = \"9MiB\", table = 0 }\n",
        &[
            (1, "handlers.invoice.limits.table: expected 1 to 1000000, found 0"),
            (1, r#"handlers.invoice.limits.stack: expected "64KiB" to "8MiB", found "9MiB""#),
        ],
    );
}

#[test]
fn an_instance_makes_way_before_it_meets_its_limit() {
    let mark = |fields: &str| handler(fields).recycle.memory_bytes;
    assert_eq!(mark("limits = { memory = \"100MiB\" }\n"), 75 << 20, "three quarters of the limit");
    assert_eq!(mark("instances = { memory = \"64MiB\" }\n"), 64 << 20);
    let remedy = "no instance ever has more; lower it, or raise limits.memory";
    refuses_handler(
        "instances = { memory = \"65MiB\" }\n",
        &[(
            1,
            &format!(
                "handlers.invoice.instances.memory: (65MiB) must be at most limits.memory (64MiB, the default): {remedy}"
            ),
        )],
    );
    refuses_handler(
        "limits = { memory = \"1MiB\" }\ninstances = { memory = \"1025KiB\" }\n",
        &[(2, &format!("handlers.invoice.instances.memory: (1025KiB) must be at most limits.memory (1MiB): {remedy}"))],
    );
    // A limit that cannot be read is told once.
    refuses_handler(
        "limits = { memory = 1 }\ninstances = { memory = \"1GiB\" }\n",
        &[(1, r#"handlers.invoice.limits.memory: expected a size in quotes, such as "64MiB", found the integer 1"#)],
    );
}

#[test]
fn an_instance_lives_for_a_while() {
    let instead = "expected more than 0; reuse = 1 gives every call a fresh instance";
    refuses_handler(
        "instances = { age = \"0s\", memory = \"0B\" }\n",
        &[
            (1, &format!("handlers.invoice.instances.age: {instead}")),
            (1, &format!("handlers.invoice.instances.memory: {instead}")),
        ],
    );
}

// --- The host's own bounds ----------------------------------------------------------------------------------------

#[test]
fn a_host_bounds_memory_compilations_and_cache() {
    let bounds = |config: Config| (config.host.memory_bytes_max, config.host.compilations, config.host.cache_bytes_max);
    assert_eq!(bounds(accepts("")), (None, 1, 1 << 30));
    let set = "[host]\nmemory = \"2GiB\"\ncompilations = 4\ncache_max = \"16MiB\"\n";
    assert_eq!(bounds(accepts(set)), (Some(2 << 30), 4, 16 << 20));
    refuses(
        "[host]\nmemory = \"1000KiB\"\ncompilations = 65\ncache_max = \"15MiB\"\n",
        &[
            (2, r#"host.memory: expected at least "1MiB", found "1000KiB""#),
            (3, "host.compilations: expected 1 to 64, found 65"),
            (4, r#"host.cache_max: expected at least "16MiB", found "15MiB""#),
        ],
    );
    refuses("[host]\ncompilations = 0\n", &[(2, "host.compilations: expected 1 to 64, found 0")]);
}
