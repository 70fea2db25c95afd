//! `pelton hosts` and `pelton hosts cleanup`

use std::{collections::BTreeMap, time::Duration};

use pelton_core::{Decision, Expelled, HostSeen, LOCK_GRACE_MS, Observer, SESSION_TIMEOUT_MS_DEFAULT, Survey};
use pelton_store::{HostInfo, Store, StoreError};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::groups::status;
use crate::{
    cli::{Common, HostsArgs, HostsCommand},
    config::show_duration,
    output,
    time::show,
};

/// Shows the hosts, or removes stale ones.
///
/// # Errors
/// A configuration or store that cannot be read.
pub async fn hosts(common: &Common, args: &HostsArgs) -> anyhow::Result<()> {
    let (_, store) = super::open(common, false).await?;
    match args.command {
        None => show_hosts(common, &store.hosts().await?)?,
        Some(HostsCommand::Cleanup) => {
            let report = remove_stale(&*store).await?;
            if common.json {
                output::json_line(&report.json())?;
            } else {
                report.print()?;
            }
        }
    }
    Ok(())
}

fn show_hosts(common: &Common, hosts: &[HostInfo]) -> std::io::Result<()> {
    if common.json {
        let row = |host: &HostInfo| {
            json!({
                "host": host.host,
                "registered_at": show(host.registered_at),
                "last_heartbeat": show(host.last_heartbeat),
                "status": status(host.active),
                "labels": host.labels,
                "groups": host.groups,
            })
        };
        return output::json_line(&hosts.iter().map(row).collect::<Vec<_>>());
    }
    let rows = hosts.iter().map(|host| {
        let labels: Vec<_> = host.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        [
            host.host.clone(),
            status(host.active).into(),
            show(host.registered_at),
            show(host.last_heartbeat),
            host.groups.join(", "),
            labels.join(", "),
        ]
    });
    let heading = ["host", "status", "registered", "last heartbeat", "groups", "labels"];
    output::table(heading, rows, "no hosts: start `pelton run`")
}

/// Who was removed, and who could not be.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cleanup {
    /// Hosts, and why.
    removed: BTreeMap<String, String>,
    /// Memberships of hosts that live on in other groups: host, group and why.
    left: Vec<(String, String, String)>,
    /// Hosts that look stale and are still counted, and why.
    waiting: BTreeMap<String, String>,
}

impl Cleanup {
    fn json(&self) -> Value {
        let by_host = |hosts: &BTreeMap<String, String>| {
            hosts.iter().map(|(host, why)| json!({ "host": host, "why": why })).collect::<Vec<_>>()
        };
        let left = self.left.iter().map(|(host, group, why)| json!({ "host": host, "group": group, "why": why }));
        json!({
            "removed": by_host(&self.removed),
            "memberships": left.collect::<Vec<_>>(),
            "waiting": by_host(&self.waiting),
        })
    }

    fn print(&self) -> std::io::Result<()> {
        for (host, why) in &self.removed {
            output::line(format_args!("removed {host}: {why}"))?;
        }
        for (host, group, why) in &self.left {
            output::line(format_args!("removed {host} from group {group}: {why}"))?;
        }
        for (host, why) in &self.waiting {
            output::line(format_args!("left {host}: {why}"))?;
        }
        if *self == Self::default() {
            output::line("no stale hosts")?;
        }
        Ok(())
    }
}

/// Gives up the hosts that are dead and removes them. Looks twice: a host that only lost its connection gets the time to
/// come back that daemons give it too.
async fn remove_stale(store: &dyn Store) -> Result<Cleanup, StoreError> {
    let (mut observer, began) = (Observer::default(), Instant::now());
    observer.decide(0, &store.survey().await?);
    if observer.grace_left_ms(0).is_some() {
        sleep(Duration::from_millis(LOCK_GRACE_MS)).await;
    }
    let survey = store.survey().await?;
    let mut report = Cleanup::default();
    for decision in observer.decide(began.elapsed().as_millis() as u64, &survey) {
        // Who is to hold which partition is for the daemons to say.
        let Decision::Expel { session, group, why, .. } = &decision else { continue };
        let (host, why) = (session.host.to_string(), reason(*why));
        if !store.decide(&decision).await? {
            report.waiting.insert(host, "it was heard of again just now".into());
        } else if let Some(group) = group {
            report.left.push((host, group.clone(), why));
        } else {
            report.removed.insert(host, why);
        }
    }
    for host in store.cleanup().await? {
        report.removed.entry(host).or_insert_with(|| "it was given up before".into());
    }
    for host in &survey.hosts {
        let name = &*host.session.host;
        if !report.removed.contains_key(name)
            && !host.expelled
            && let Some(why) = not_yet(&survey, host)
        {
            report.waiting.entry(name.into()).or_insert(why);
        }
    }
    Ok(report)
}

fn reason(why: Expelled) -> String {
    match why {
        Expelled::LockFree => "its process is gone".into(),
        Expelled::Silent(ms) => format!("nothing was heard of it for {}", seconds(ms)),
    }
}

/// Why a host that missed a heartbeat still counts.
fn not_yet(survey: &Survey, host: &HostSeen) -> Option<String> {
    let of_host = survey.groups.iter().flat_map(|group| &group.members).filter(|member| member.session == host.session);
    let timeout = of_host.map(|member| member.session_timeout_ms).max().unwrap_or(SESSION_TIMEOUT_MS_DEFAULT);
    let silent = survey.silent_ms(host);
    // There are at least three heartbeats in a session timeout: this one is late.
    (silent > timeout / 2).then(|| {
        let timeout = show_duration(Duration::from_millis(timeout));
        let silent = seconds(silent);
        format!("nothing was heard of it for {silent}, and its session timeout of {timeout} has not passed yet; ask again then")
    })
}

/// A silence as people say it.
fn seconds(ms: u64) -> String {
    let whole = if ms < 10_000 { ms } else { ms / 1000 * 1000 };
    show_duration(Duration::from_millis(whole))
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use pelton_core::{Membership, Timestamp};
    use pelton_store::{GroupSpec, MemoryStore, Registration, Start, StreamSpec};

    use super::*;

    /// Two hosts in one group, and the hand that moves the store's clock.
    async fn two_hosts() -> (MemoryStore, Arc<AtomicU64>) {
        let now = Arc::new(AtomicU64::new(1_000_000));
        let hand = Arc::clone(&now);
        let store = MemoryStore::new(Arc::new(move || Timestamp(hand.load(Ordering::SeqCst))));
        let stream = StreamSpec { name: "in".into(), partitions: 2, payload_bytes_max: 1024, retention_ms: None };
        store.declare_stream(&stream).await.expect("declared");
        let (name, stream, handler) = ("work".to_owned(), "in".into(), "h".into());
        let spec = GroupSpec { name: name.clone(), stream, handler, start: Start::Earliest };
        store.declare_group(&spec).await.expect("declared");
        for host in ["a", "b"] {
            let membership = Membership { group: name.clone(), session_timeout_ms: 30_000, partitions_max: 0 };
            let host = Registration { host: host.into(), memberships: vec![membership], ..Registration::default() };
            store.register(&host).await.expect("registered");
        }
        (store, now)
    }

    async fn names(store: &MemoryStore) -> Vec<String> {
        store.hosts().await.expect("hosts").into_iter().map(|host| host.host).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_whose_process_is_gone_is_removed_after_the_grace_period() {
        let (store, _) = two_hosts().await;
        store.drop_lock("a");
        let report = remove_stale(&store).await.expect("done");
        assert_eq!(
            report.json(),
            json!({ "removed": [{ "host": "a", "why": "its process is gone" }], "memberships": [], "waiting": [] })
        );
        assert_eq!(names(&store).await, ["b"]);
        assert_eq!(remove_stale(&store).await.expect("done"), Cleanup::default());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_host_is_removed_when_its_session_timeout_has_passed() {
        let (store, now) = two_hosts().await;
        now.fetch_add(20_000, Ordering::SeqCst);
        let report = remove_stale(&store).await.expect("done");
        assert_eq!((report.removed.len(), report.waiting.len()), (0, 2));
        assert_eq!(
            report.waiting["a"],
            "nothing was heard of it for 20s, and its session timeout of 30s has not passed yet; ask again then"
        );
        now.fetch_add(20_000, Ordering::SeqCst);
        let report = remove_stale(&store).await.expect("done");
        assert_eq!(report.removed["b"], "nothing was heard of it for 40s");
        assert_eq!(names(&store).await, [""; 0]);
    }
}
