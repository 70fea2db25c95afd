//! A PgBouncer of a test's own, in front of the server that `PELTON_TEST_POSTGRES` names.

use std::{
    fs,
    io::Write,
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Once,
    thread,
    time::{Duration, Instant},
};

use sqlx::{ConnectOptions, PgConnection, postgres::PgConnectOptions};
use tempfile::TempDir;

use crate::user;

/// How long it takes to start, at most.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// In transaction mode, with far fewer of the server's connections than a store opens.
pub(crate) const TRANSACTIONS: &str = "pool_mode = transaction\ndefault_pool_size = 5";

pub(crate) struct Bouncer {
    port: u16,
    process: Child,
    _folder: TempDir,
}

impl Bouncer {
    /// `None`, after one line that says so, where it is not installed.
    pub(crate) fn start(server: &str, mode: &str) -> Option<Self> {
        static TOLD: Once = Once::new();
        let program = program();
        if program.is_none() {
            // Not with a macro, whose output cargo keeps to itself.
            let line = "NOT RUN: what takes PgBouncer; it is not installed\n";
            TOLD.call_once(|| drop(std::io::stderr().write_all(line.as_bytes())));
        }
        let program = program?;
        // Another test may take the port in between.
        (0..5).find_map(|_| Self::try_start(&program, server, mode)).or_else(|| panic!("PgBouncer did not start"))
    }

    fn try_start(program: &Path, server: &str, mode: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = folder.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\npooled = {}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\nmax_client_conn = 500\n{mode}\n",
            database(server)
        );
        fs::write(&settings, text).unwrap();
        // It refuses to run as root.
        let user = user::unprivileged();
        user::give(folder.path(), user);
        let mut command = Command::new(program);
        command.arg("-q").arg(&settings).current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some((uid, gid)) = user {
            command.uid(uid).gid(gid);
        }
        let mut started = Self { port, process: command.spawn().unwrap(), _folder: folder };
        let give_up = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > give_up || started.process.try_wait().unwrap().is_some() {
                return None;
            }
            thread::sleep(Duration::from_millis(5));
        }
        Some(started)
    }

    /// A connection as any application has one, and nothing more.
    #[allow(dead_code, reason = "not every suite that has a pooler connects to it by itself")]
    pub(crate) async fn connect(&self) -> PgConnection {
        let options: PgConnectOptions = self.url().parse().unwrap();
        // PgBouncer refuses parameters that it does not know.
        options.extra_float_digits(None).connect().await.unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://pelton@127.0.0.1:{}/pooled", self.port)
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A URL such as `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, as PgBouncer writes it.
fn database(url: &str) -> String {
    let rest = url.split_once("://").unwrap().1;
    let rest = rest.split_once('?').map_or(rest, |(rest, _)| rest);
    let (user, place) = rest.rsplit_once('@').unwrap();
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let (host, name) = place.split_once('/').unwrap_or((place, user));
    let (host, port) = host.split_once(':').unwrap_or((host, "5432"));
    let password = if password.is_empty() { String::new() } else { format!(" password='{password}'") };
    format!("host={host} port={port} dbname={name} user={user}{password}")
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Debian's folder for it is in no ordinary user's path.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    folders.map(|folder| folder.join("pgbouncer")).find(|program| program.exists())
}
