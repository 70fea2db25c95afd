//! A server of a test's own, to be stopped, started and hurt.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::time::sleep;

use crate::user;

/// How long a server takes to start or to stop, at most.
const START_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct Cluster {
    bin: PathBuf,
    port: u16,
    user: Option<(u32, u32)>,
    server: Option<Child>,
    folder: TempDir,
}

impl Cluster {
    /// `None`, after a line that says so, where the server's programs are not installed.
    pub(crate) async fn start() -> Option<Self> {
        // Whoever does not want PostgreSQL in the tests shall not get it by the back door.
        std::env::var_os("PELTON_TEST_POSTGRES")?;
        let Some(bin) = programs() else {
            let line = "NOT RUN: what stops and starts PostgreSQL; its server's programs are not installed\n";
            drop(std::io::stderr().write_all(line.as_bytes()));
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        // PostgreSQL refuses to run as root.
        let user = user::unprivileged();
        user::give(folder.path(), user);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut cluster = Self { bin, port, user, server: None, folder };
        let data = cluster.data();
        let made = cluster
            .command("initdb")
            .args(["--username", "pelton", "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--pgdata"])
            .arg(&data)
            .stdout(Stdio::null())
            .status();
        assert!(made.unwrap().success(), "initdb failed");
        cluster.up().await;
        Some(cluster)
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://pelton@127.0.0.1:{}/postgres", self.port)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stderr(Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Starts the server, and returns once it answers.
    pub(crate) async fn up(&mut self) {
        let server = self
            .command("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "shared_buffers=16MB"])
            .arg("-c")
            .arg(format!("unix_socket_directories={}", self.folder.path().display()))
            .stdout(Stdio::null())
            .spawn();
        self.server = Some(server.unwrap());
        let give_up = Instant::now() + START_TIMEOUT;
        while !self.answers() {
            assert!(Instant::now() < give_up, "the server did not start");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// From now on nobody is let in without a password, and nobody has one.
    pub(crate) async fn wants_passwords(&mut self) {
        self.down();
        fs::write(self.data().join("pg_hba.conf"), "host all all all scram-sha-256\n").unwrap();
        self.up().await;
    }

    /// Whether the server takes connections.
    pub(crate) fn answers(&self) -> bool {
        let port = self.port.to_string();
        self.command("pg_isready").args(["-q", "-h", "127.0.0.1", "-p", &port]).status().unwrap().success()
    }

    /// Stops the server: everybody who is connected is told so.
    pub(crate) fn down(&mut self) {
        self.signal("-INT");
        self.server.take().unwrap().wait().unwrap();
    }

    fn signal(&self, signal: &str) {
        if let Some(server) = &self.server {
            kill(server.id(), signal);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.signal("-QUIT");
        if let Some(mut server) = self.server.take() {
            let _ = server.wait();
        }
    }
}

/// Sends a signal to a process.
pub(crate) fn kill(pid: u32, signal: &str) {
    let _ = Command::new("kill").arg(signal).arg(pid.to_string()).status();
}

/// The newest folder that holds the server's programs.
fn programs() -> Option<PathBuf> {
    let in_path =
        std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect();
    versions.sort_by_key(|path| {
        let version = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).map(str::to_owned);
        std::cmp::Reverse(version.and_then(|name| name.parse::<u32>().ok()))
    });
    let has_all = |folder: &PathBuf| folder.join("postgres").exists() && folder.join("initdb").exists();
    versions.into_iter().chain(in_path).find(|folder| has_all(folder))
}
