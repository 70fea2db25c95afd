//! Deny by default: what a handler may do is what it was granted, and nothing beside it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/server.rs"]
mod server;

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{EventExt, SANDBOX, Stage, emitted, event, grants, guest};
use pelton_core::{Event, Outcome, Timestamp};
use pelton_sandbox::{
    Grants, HttpGrant, Limits, LoadError, LogLevel, Module, Origin, Recycle, Resolver, Sandbox, SandboxOptions, Secret,
};
use server::Server;
use tokio::sync::OnceCell;

/// Names that stand for what the tests need, and how often one was asked for.
#[derive(Debug, Default)]
struct Names {
    asked: AtomicUsize,
}

#[async_trait::async_trait]
impl Resolver for Names {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let addresses: &[&str] = match host {
            "inside.test" => &["127.0.0.1"],
            // The first is for documentation, and neither on this machine nor public.
            "localhost" => &["192.0.2.1", "127.0.0.1"],
            "mapped.test" => &["::ffff:127.0.0.1", "10.0.0.1", "169.254.169.254"],
            "nobody.test" => &[],
            "silent.test" => std::future::pending().await,
            _ => return Err(io::Error::other("no such host")),
        };
        Ok(addresses.iter().map(|address| address.parse().unwrap()).collect())
    }
}

static NAMES: LazyLock<Arc<Names>> = LazyLock::new(Arc::default);

/// Compiled once; each test regrants it.
async fn explorer(grants: Grants) -> Module {
    static MODULE: OnceCell<Module> = OnceCell::const_new();
    let load = || async {
        let options = SandboxOptions { instances_max: 100, resolver: Some(NAMES.clone()), ..SandboxOptions::default() };
        let nobody = Grants { http: HttpGrant::Origins(Vec::new()), ..grants.clone() };
        let sandbox = Sandbox::new(options).unwrap();
        sandbox.load(guest("explorer").into(), nobody, Arc::default()).await.unwrap()
    };
    MODULE.get_or_init(load).await.regrant(grants).unwrap()
}

async fn stage(grants: Grants) -> Stage {
    Stage::around(explorer(grants).await)
}

fn origin(host: &str, port: u16) -> Origin {
    Origin { tls: false, host: host.into(), port, private: false }
}

/// A handler that may call these.
fn calling(origins: &[Origin]) -> Grants {
    Grants { http: HttpGrant::Origins(origins.to_vec()), ..grants() }
}

fn nobody() -> Grants {
    calling(&[])
}

/// What the guest found out.
async fn found(stage: &mut Stage, event: Event) -> String {
    let invocation = stage.call(&[event]).await;
    assert_eq!(invocation.outcome, Outcome::Done);
    emitted(&invocation).remove(0)
}

async fn fetched(stage: &mut Stage, url: &str) -> String {
    found(stage, event(0, "http", url)).await
}

/// How many requests went out, and how many were denied, by all handlers of the module. Tests that count load their own.
fn counted(stage: &Stage) -> (u64, u64) {
    let usage = stage.module.usage();
    (usage.http_requests.load(Ordering::Relaxed), usage.http_denied.load(Ordering::Relaxed))
}

async fn counting(grants: Grants) -> Stage {
    Stage::around(SANDBOX.load(guest("explorer").into(), grants, Arc::default()).await.unwrap())
}

#[tokio::test]
async fn a_handler_that_may_call_nobody_may_not_import_http() {
    let error = SANDBOX.load(guest("explorer").into(), grants(), Arc::default()).await.err().unwrap();
    let LoadError::Imports(faults) = &error else { panic!("{error}") };
    assert_eq!(faults.len(), 2, "{faults:?}");
    for import in ["wasi:http/types@0.2.12", "wasi:http/outgoing-handler@0.2.12"] {
        assert!(faults.iter().any(|fault| fault.starts_with(import)), "{faults:?}");
    }
    let text = error.to_string();
    assert!(text.contains("allow.http") && text.contains("`http = []`") && text.contains("\"invoice\""), "{text}");
}

#[tokio::test]
async fn a_module_is_granted_more_or_less_without_being_compiled_again() {
    let server = Server::start().await;
    let module = explorer(nobody()).await;
    let granted = module.regrant(calling(&[origin("127.0.0.1", server.port())])).unwrap();
    assert_eq!((granted.digest(), granted.world()), (module.digest(), module.world()));
    assert!(Arc::ptr_eq(granted.usage(), module.usage()));
    let url = server.url("/ok");
    assert_eq!(fetched(&mut Stage::around(granted.clone()), &url).await, "200 hello");
    assert_eq!(fetched(&mut Stage::around(module), &url).await, "ErrorCode::HttpRequestDenied");
    let refused = granted.regrant(grants()).err().unwrap();
    assert!(matches!(refused, LoadError::Imports(_)), "{refused}");
    let held_back = Stage::around(granted.regrant(granted.grants().held_back()).unwrap());
    assert_eq!(fetched(&mut { held_back }, &url).await, "ErrorCode::HttpRequestDenied");
}

#[tokio::test]
async fn a_named_origin_is_called_over_a_connection_of_its_own() {
    let server = Server::start().await;
    let mut stage = counting(calling(&[origin("127.0.0.1", server.port())])).await;
    let head = fetched(&mut stage, &server.url("/head?a=b")).await;
    assert!(head.starts_with("200 GET /head?a=b HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nhost: {}\r\n", server.address)), "{head}");
    assert_eq!(head.matches("host:").count(), 1, "{head}");
    assert_eq!(fetched(&mut stage, &server.url("/ok")).await, "200 hello");
    assert_eq!((server.connections(), counted(&stage)), (2, (2, 0)));
    server.left_alone().await;
}

#[tokio::test]
async fn a_body_is_sent() {
    let server = Server::start().await;
    let mut stage = stage(calling(&[origin("127.0.0.1", server.port())])).await;
    let post = event(0, "http", &server.url("/body")).header("method", "post").header("body", "500000");
    let said = found(&mut stage, post).await;
    assert!(said.starts_with("200 took about 48"), "{said}");
}

#[tokio::test]
async fn every_other_origin_is_denied_and_the_log_says_what_to_do() {
    let (server, other) = (Server::start().await, Server::start().await);
    let mut stage = counting(calling(&[origin("127.0.0.1", server.port())])).await;
    let denied = [
        other.url("/ok"),
        format!("https://{}/ok", server.address),
        format!("http://localhost:{}/ok", server.port()),
        format!("http://[::ffff:127.0.0.1]:{}/ok", server.port()),
        format!("http://127.1:{}/ok", server.port()),
        "http://127.0.0.1/ok".into(),
        "http://example.com/ok".into(),
    ];
    for url in &denied {
        assert_eq!(fetched(&mut stage, url).await, "ErrorCode::HttpRequestDenied", "{url}");
    }
    let lines = stage.lines.taken();
    assert_eq!(lines.len(), denied.len());
    let line = &lines[0];
    assert_eq!((line.level, &*line.context, line.offset.unwrap().0), (LogLevel::Warn, "pelton", 0));
    let asked = format!("http://{}", other.address);
    assert!(line.message.contains(&format!("request to {asked} denied")), "{line:?}");
    assert!(line.message.contains("allow.http") && line.message.contains(&server.address.to_string()), "{line:?}");
    assert_eq!(counted(&stage), (0, denied.len() as u64));
    assert_eq!((server.connections(), other.connections()), (0, 0));
}

#[tokio::test]
async fn no_request_is_smuggled_under_a_granted_name() {
    let server = Server::start().await;
    let mut stage = stage(calling(&[origin("127.0.0.1", server.port())])).await;
    let credentials = format!("http://user:word@{}/ok", server.address);
    assert_eq!(fetched(&mut stage, &credentials).await, "ErrorCode::HttpRequestUriInvalid");
    let disguised = format!("http://127.0.0.1:{}@example.com/ok", server.port());
    assert_eq!(fetched(&mut stage, &disguised).await, "ErrorCode::HttpRequestUriInvalid");
    for header in ["host: example.com", "connection: upgrade", "transfer-encoding: chunked", "upgrade: h2c"] {
        let request = event(0, "http", &server.url("/ok")).header("header", header);
        assert_eq!(found(&mut stage, request).await, "HeaderError::Forbidden", "{header}");
    }
    let tunnel = event(0, "http", &server.url("/ok")).header("method", "connect");
    assert_eq!(found(&mut stage, tunnel).await, "ErrorCode::HttpRequestMethodInvalid");
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_redirect_is_the_guests_to_follow_and_is_judged_again() {
    let (server, other) = (Server::start().await, Server::start().await);
    let mut stage = stage(calling(&[origin("127.0.0.1", server.port())])).await;
    let answer = fetched(&mut stage, &server.url(&format!("/redirect?{}", other.url("/ok")))).await;
    assert_eq!(answer, format!("302 {}", other.url("/ok")));
    assert_eq!(fetched(&mut stage, &other.url("/ok")).await, "ErrorCode::HttpRequestDenied");
    assert_eq!(other.connections(), 0);
}

#[tokio::test]
async fn a_name_may_not_lead_inside() {
    let server = Server::start().await;
    let port = server.port();
    let names = ["inside.test", "mapped.test"];
    let mut public = stage(calling(&names.map(|name| origin(name, port)))).await;
    for name in names {
        let url = format!("http://{name}:{port}/ok");
        assert_eq!(fetched(&mut public, &url).await, "ErrorCode::DestinationIpProhibited", "{name}");
    }
    let lines = public.lines.taken();
    assert!(lines[0].message.contains("inside.test") && lines[0].message.contains("127.0.0.1"), "{lines:?}");
    assert!(lines[0].message.contains("allow.http"), "{lines:?}");
    assert_eq!(server.connections(), 0);

    let private = Origin { private: true, ..origin("inside.test", port) };
    let mut private = stage(calling(&[private, origin("localhost", port)])).await;
    assert_eq!(fetched(&mut private, &format!("http://inside.test:{port}/ok")).await, "200 hello");
    assert_eq!(fetched(&mut private, &format!("http://LocalHost:{port}/ok")).await, "200 hello");
}

#[tokio::test]
async fn a_name_is_resolved_once_and_what_was_judged_is_connected_to() {
    let server = Server::start().await;
    // A sandbox of its own, for the count.
    let names = Arc::<Names>::default();
    let options = SandboxOptions { instances_max: 10, resolver: Some(names.clone()), ..SandboxOptions::default() };
    let private = Origin { private: true, ..origin("inside.test", server.port()) };
    let sandbox = Sandbox::new(options).unwrap();
    let module = sandbox.load(guest("explorer").into(), calling(&[private]), Arc::default()).await.unwrap();
    let url = format!("http://inside.test:{}/head", server.port());
    let head = fetched(&mut Stage::around(module), &url).await;
    assert!(head.contains(&format!("host: inside.test:{}\r\n", server.port())), "{head}");
    assert_eq!(names.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_host_that_is_not_found_or_does_not_answer_is_an_error() {
    let server = Server::start().await;
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let hosts = ["nowhere.test", "nobody.test", "silent.test"].map(|name| origin(name, 80));
    let mut stage = stage(calling(&[&hosts[..], &[origin("127.0.0.1", closed.port())]].concat())).await;
    for name in ["nowhere.test", "nobody.test"] {
        let said = fetched(&mut stage, &format!("http://{name}/")).await;
        assert!(said.starts_with("ErrorCode::DnsError"), "{said}");
    }
    let silent = event(0, "http", "http://silent.test/").header("connect-ms", "50");
    assert_eq!(found(&mut stage, silent).await, "ErrorCode::DnsTimeout");
    assert_eq!(fetched(&mut stage, &format!("http://{closed}/")).await, "ErrorCode::ConnectionRefused");
    drop(server);
}

#[tokio::test]
async fn a_server_that_is_slow_ends_the_call_and_nothing_is_left_of_it() {
    let server = Server::start().await;
    let hasty = Limits { timeout: Duration::from_millis(400), ..Limits::default() };
    let grants = Grants { limits: hasty, ..calling(&[origin("127.0.0.1", server.port())]) };
    for path in ["/silent", "/slow-body"] {
        let mut stage = stage(grants.clone()).await;
        let invocation = stage.call(&[event(0, "http", &server.url(path))]).await;
        assert!(matches!(invocation.outcome, Outcome::TimedOut(_)), "{path}: {:?}", invocation.outcome);
        server.left_alone().await;
        assert_eq!(fetched(&mut stage, &server.url("/ok")).await, "200 hello");
    }
}

#[tokio::test]
async fn a_guest_waits_no_longer_than_it_means_to() {
    let server = Server::start().await;
    let mut stage = stage(calling(&[origin("127.0.0.1", server.port())])).await;
    let silent = event(0, "http", &server.url("/silent")).header("first-byte-ms", "50");
    assert_eq!(found(&mut stage, silent).await, "ErrorCode::ConnectionReadTimeout");
    let slow = event(0, "http", &server.url("/slow-body")).header("between-bytes-ms", "50");
    assert_eq!(found(&mut stage, slow).await, "ErrorCode::ConnectionReadTimeout after 9 bytes");
    server.left_alone().await;
}

#[tokio::test]
async fn a_request_that_is_left_ends_with_its_call() {
    let server = Server::start().await;
    let mut stage = stage(calling(&[origin("127.0.0.1", server.port())])).await;
    for _ in 0..40 {
        assert_eq!(found(&mut stage, event(0, "http-left", &server.url("/silent"))).await, "left");
    }
    server.left_alone().await;
    assert_eq!(fetched(&mut stage, &server.url("/ok")).await, "200 hello");
}

#[tokio::test]
async fn so_many_requests_are_in_flight_and_no_more() {
    let server = Server::start().await;
    let mut stage = stage(calling(&[origin("127.0.0.1", server.port())])).await;
    let silent = server.url("/silent");
    let many = event(0, "http-many", &silent).header("n", "20").header("first-byte-ms", "500");
    let said = found(&mut stage, many).await;
    assert_eq!(said.matches("ConnectionReadTimeout").count(), 16, "{said}");
    assert_eq!(said.matches("ConnectionLimitReached").count(), 4, "{said}");
    server.left_alone().await;
}

#[tokio::test]
async fn bodies_are_bounded_both_ways() {
    let server = Server::start().await;
    let tight = Limits { http_body_bytes: 100_000, ..Limits::default() };
    let grants = Grants { limits: tight, ..calling(&[origin("127.0.0.1", server.port())]) };
    let mut stage = stage(grants).await;
    let declared = fetched(&mut stage, &server.url("/large?100001")).await;
    assert_eq!(declared, "ErrorCode::HttpResponseBodySize(Some(100001))");
    let endless = fetched(&mut stage, &server.url("/endless")).await;
    assert!(endless.starts_with("ErrorCode::HttpResponseBodySize("), "{endless}");
    let post = |bytes| event(0, "http", &server.url("/body")).header("method", "post").header("body", bytes);
    let small = found(&mut stage, post("99000")).await;
    assert!(small.starts_with("200 took about 9"), "{small}");
    let large = found(&mut stage, post("200000")).await;
    assert!(large.starts_with("ErrorCode::HttpRequestBodySize("), "{large}");
    let said = found(&mut stage, post("1").header("declare", "100001")).await;
    assert_eq!(said, "ErrorCode::HttpRequestBodySize(Some(100001))");
    server.left_alone().await;
}

#[tokio::test]
async fn a_server_that_talks_nonsense_is_an_error() {
    let server = Server::start().await;
    let mut stage = stage(calling(&[origin("127.0.0.1", server.port())])).await;
    for path in ["/endless-head", "/many-headers"] {
        let said = fetched(&mut stage, &server.url(path)).await;
        assert!(said.starts_with("ErrorCode::HttpResponseHeaderSectionSize"), "{path}: {said}");
    }
    assert_eq!(fetched(&mut stage, &server.url("/nonsense")).await, "ErrorCode::HttpProtocolError");
    let short = fetched(&mut stage, &server.url("/short-body")).await;
    assert_eq!(short, "ErrorCode::HttpResponseIncomplete after 9 bytes");
    server.left_alone().await;
}

#[tokio::test]
async fn what_is_not_tls_is_not_taken_for_it() {
    let server = Server::start().await;
    let tls = Origin { tls: true, ..origin("127.0.0.1", server.port()) };
    let mut stage = stage(calling(&[tls])).await;
    let request = event(0, "http", &format!("https://{}/ok", server.address)).header("connect-ms", "500");
    // In the order of: no such record, no answer to the greeting, no certificates on this machine.
    let said = found(&mut stage, request).await;
    let failures = ["ErrorCode::TlsProtocolError", "ErrorCode::ConnectionTimeout", "ErrorCode::TlsCertificateError"];
    assert!(failures.contains(&&*said), "{said}");
}

/// The system's certificates are read once in a process, so the process is another.
#[tokio::test]
async fn tls_is_spoken_with_who_has_a_certificate_for_the_name() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "with_a_certificate"]).env("SSL_CERT_FILE", folder.join("certificate.pem"));
    let output = command.env_remove("SSL_CERT_DIR").output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
#[ignore = "run by the test above, with its environment"]
async fn with_a_certificate() {
    let server = Server::start_tls().await;
    let tls = |host: &str| Origin { tls: true, private: true, ..origin(host, server.port()) };
    let mut stage = stage(calling(&["127.0.0.1", "inside.test", "localhost"].map(tls))).await;
    for host in ["127.0.0.1", "inside.test"] {
        let said = fetched(&mut stage, &format!("https://{host}:{}/ok", server.port())).await;
        assert_eq!(said, "200 hello", "{host}");
    }
    let another = fetched(&mut stage, &format!("https://localhost:{}/ok", server.port())).await;
    assert_eq!(another, "ErrorCode::TlsCertificateError");
    server.left_alone().await;
}

fn at(offset: u64, kind: &str, payload: &str, ms: u64) -> Event {
    Event { time: Timestamp(ms), ..event(offset, kind, payload) }
}

#[tokio::test]
async fn without_clocks_time_stands_at_the_event_in_hand() {
    let mut stage = stage(nobody()).await;
    assert_eq!(found(&mut stage, at(0, "time", "", 1_700_000_000_123)).await, "1700000000.123000000 0");
    assert_eq!(found(&mut stage, at(1, "time", "", 5)).await, "0.005000000 0");
}

#[tokio::test]
async fn without_clocks_a_sleeper_wakes_at_once() {
    let mut stage = stage(nobody()).await;
    let begin = std::time::Instant::now();
    assert_eq!(found(&mut stage, event(0, "sleep", "3600000")).await, "slept");
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn with_clocks_time_is_real() {
    let mut stage = stage(Grants { clocks: true, ..nobody() }).await;
    let shown = found(&mut stage, at(0, "time", "", 5)).await;
    let seconds: u64 = shown.split('.').next().unwrap().parse().unwrap();
    let real = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(real.abs_diff(seconds) < 100, "{shown}");
    let begin = std::time::Instant::now();
    assert_eq!(found(&mut stage, event(0, "sleep", "60")).await, "slept");
    assert!(begin.elapsed() >= Duration::from_millis(120));
}

#[tokio::test]
async fn without_chance_the_same_event_gets_the_same_numbers_on_any_instance() {
    let fresh_every_time = Recycle { calls: 1, ..Recycle::default() };
    let mut warm = stage(nobody()).await;
    let mut fresh = stage(Grants { recycle: fresh_every_time, ..nobody() }).await;
    let first = found(&mut warm, event(7, "random", "")).await;
    let other = found(&mut warm, event(8, "random", "")).await;
    assert_ne!(first, other);
    assert_eq!(found(&mut warm, event(7, "random", "")).await, first);
    assert_eq!(found(&mut fresh, event(8, "random", "")).await, other);
    assert_eq!(found(&mut fresh, event(7, "random", "")).await, first);
}

#[tokio::test]
async fn with_chance_it_does_not() {
    let mut stage = stage(Grants { random: true, ..nobody() }).await;
    let first = found(&mut stage, event(7, "random", "")).await;
    assert_ne!(found(&mut stage, event(7, "random", "")).await, first);
}

#[tokio::test]
async fn there_is_nothing_around_a_handler() {
    for grants in [nobody(), Grants { clocks: true, random: true, ..nobody() }] {
        let mut stage = stage(grants).await;
        let around = found(&mut stage, event(0, "surroundings", "")).await;
        assert_eq!(around, "0 files, 0 variables, 0 arguments, folder None, 0 bytes of input");
        for kind in ["tcp", "udp", "resolve"] {
            let said = found(&mut stage, event(0, kind, "localhost")).await;
            assert!(said.contains("access-denied") || said.contains("permanent-resolver-failure"), "{kind}: {said}");
            assert!(!said.contains("Ok("), "{kind}: {said}");
        }
    }
}

const KEY: &str = "sk-live-51H8xJ2eZvKYlo2C";
const PEM: &str = "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA75\n-----END KEY-----\n";

async fn in_the_know() -> Stage {
    let secrets = vec![("api_key".into(), Secret::new(KEY.into())), ("pem".into(), Secret::new(PEM.into()))];
    stage(Grants { secrets, ..nobody() }).await
}

#[tokio::test]
async fn a_secret_is_read_like_configuration() {
    let mut stage = in_the_know().await;
    assert_eq!(found(&mut stage, event(0, "tell", "api_key")).await, KEY.len().to_string());
    assert_eq!(found(&mut stage, event(0, "tell", "currency")).await, "3");
    assert_eq!(found(&mut stage, event(0, "tell", "nothing")).await, "0");
}

#[tokio::test]
async fn no_line_of_the_log_tells_a_secret() {
    let mut stage = in_the_know().await;
    for (how, name) in [("message", "api_key"), ("context", "api_key"), ("output", "api_key"), ("output", "pem")] {
        found(&mut stage, event(0, "tell", name).header("how", how)).await;
    }
    found(&mut stage, event(0, "tell", "api_key").header("how", "long-output")).await;
    let lines = stage.lines.taken();
    let said: Vec<String> = lines.iter().map(|line| format!("{}: {}", line.context, line.message)).collect();
    assert_eq!(said[1], "[secret api_key]: see the context");
    assert!(said[0].ends_with("the key is [secret api_key]."), "{said:?}");
    assert_eq!(said[2], "stdout: the key is [secret api_key].");
    let all = said.concat();
    for piece in [&KEY[..9], &KEY[KEY.len() - 9..], "MIIE", "AQEA75"] {
        assert!(!all.contains(piece), "{piece}: {all}");
    }
    assert!(all.contains("[secret pem]"), "{all}");
}

#[tokio::test]
async fn no_reason_tells_a_secret() {
    let mut stage = in_the_know().await;
    for how in ["error", "long-error", "panic"] {
        let outcome = stage.call(&[event(0, "tell", "api_key").header("how", how)]).await.outcome;
        let (Outcome::Permanent(reason) | Outcome::Trapped(reason)) = &outcome else { panic!("{outcome:?}") };
        assert!(!reason.contains("sk-l") && !reason.contains("lo2C"), "{how}: {reason}");
        assert!(reason.contains("[sec"), "{how}: {reason}");
    }
    let said: String = stage.lines.taken().iter().map(|line| line.message.clone()).collect();
    assert!(said.contains("no luck with [secret api_key]") && !said.contains("sk-live"), "{said}");
}
