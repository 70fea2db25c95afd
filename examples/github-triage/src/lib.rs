//! Turns GitHub webhooks into alerts: what a maintainer wants to be told about today, and nothing else.

use pelton_sdk::{Error, Event, Handler, NewEvent, emit, log};
use serde::Serialize;
use serde_json::Value;

/// The edition of the rules, stamped on each alert so that a reader can tell which one raised it.
const RULES: u32 = if cfg!(feature = "v2") { 2 } else { 1 };

#[derive(Serialize)]
struct Alert<'a> {
    rules: u32,
    repo: Option<&'a str>,
    reason: &'a str,
    title: &'a str,
    url: Option<&'a str>,
    /// Where the webhook is to be found: its kind and its place in the stream.
    event: &'a str,
    partition: u32,
    offset: u64,
}

struct Triage;

impl Handler for Triage {
    fn handle(event: Event) -> Result<(), Error> {
        let webhook: Value = event.json()?;
        let Some((reason, title, url)) = judge(&event.kind, &webhook) else {
            return Ok(());
        };
        let repo = event.key.as_deref().or_else(|| text(&webhook, "/repository/full_name"));
        let alert = Alert {
            rules: RULES,
            repo,
            reason,
            title: text(&webhook, title).unwrap_or("(no title)"),
            url: text(&webhook, url).or_else(|| text(&webhook, "/repository/html_url")),
            event: &event.kind,
            partition: event.partition,
            offset: event.offset,
        };
        log::info!("{reason}: {}", alert.title);
        let mut alert = NewEvent::json("alert", &alert)?;
        alert.key = repo.map(str::to_owned);
        emit("alerts", alert)
    }
}

pelton_sdk::export!(Triage);

/// The rules. What deserves an alert gets a reason, and where in the webhook its title and address are.
fn judge(kind: &str, webhook: &Value) -> Option<(&'static str, &'static str, &'static str)> {
    let (name, action) = kind.split_once('.').unwrap_or((kind, ""));
    let alert = match (name, action) {
        ("security_advisory", "published") => {
            ("security advisory", "/security_advisory/summary", "/security_advisory/references/0/url")
        }
        ("code_scanning_alert", "created" | "reopened") => {
            ("code scanning alert", "/alert/rule/description", "/alert/html_url")
        }
        ("secret_scanning_alert", "created" | "reopened") => ("leaked secret", "/alert/secret_type", "/alert/html_url"),
        ("dependabot_alert", "created") => {
            ("vulnerable dependency", "/alert/security_advisory/summary", "/alert/html_url")
        }
        ("repository_vulnerability_alert", "create") => {
            ("vulnerable dependency", "/alert/affected_package_name", "/alert/external_reference")
        }
        ("branch_protection_rule", "deleted") => ("branch protection removed", "/rule/name", "/repository/html_url"),
        ("public", _) | ("repository", "publicized") => {
            ("repository made public", "/repository/full_name", "/repository/html_url")
        }
        ("push", _) if webhook["forced"] == true => ("forced push", "/ref", "/compare"),
        ("check_run", "completed") if failed(&webhook["check_run"]) => {
            ("failed check", "/check_run/name", "/check_run/html_url")
        }
        ("workflow_run", "completed") if failed(&webhook["workflow_run"]) => {
            ("failed workflow", "/workflow_run/name", "/workflow_run/html_url")
        }
        ("workflow_job", "completed") if failed(&webhook["workflow_job"]) => {
            ("failed job", "/workflow_job/name", "/workflow_job/html_url")
        }
        ("issues", "opened" | "reopened") if has_label(webhook, "security") => {
            ("security issue", "/issue/title", "/issue/html_url")
        }
        // Too many of them to be alerts, as the first edition showed.
        ("issues", "opened" | "reopened") if RULES == 1 && has_label(webhook, "bug") => {
            ("bug reported", "/issue/title", "/issue/html_url")
        }
        ("deploy_key", "created") if RULES >= 2 => ("new deploy key", "/key/title", "/repository/html_url"),
        ("member", "added") if RULES >= 2 => ("new collaborator", "/member/login", "/member/html_url"),
        _ => return None,
    };
    Some(alert)
}

fn failed(run: &Value) -> bool {
    matches!(run["conclusion"].as_str(), Some("failure" | "timed_out" | "startup_failure"))
}

fn has_label(webhook: &Value, label: &str) -> bool {
    webhook["issue"]["labels"].as_array().is_some_and(|labels| labels.iter().any(|each| each["name"] == label))
}

fn text<'a>(webhook: &'a Value, pointer: &str) -> Option<&'a str> {
    webhook.pointer(pointer)?.as_str()
}
