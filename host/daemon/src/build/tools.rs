//! Compilers that come from PyPI: where they are looked for, and how they are brought into a folder of Pelton's own.
//!
//! A virtual environment for each tool and version, shared by all projects of a user. Nothing is installed unless it is
//! asked for with `--install-tools`.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use super::ask;

/// Says where tools are installed; the user's data folder if it is not set.
const TOOLS_VAR: &str = "PELTON_TOOLS";
/// Written last, so that an installation that was broken off is not taken for one.
const COMPLETE: &str = "complete";

/// A package of PyPI, in the version that was tried with this contract.
#[derive(Clone, Copy, Debug)]
pub(super) struct Package {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    /// How much is downloaded, roughly.
    pub(super) download: &'static str,
    /// The program it installs beside `python`, if any.
    pub(super) program: Option<&'static str>,
    /// The module it can be run as with `python -m`, if any.
    pub(super) module: Option<&'static str>,
    /// What makes it print its version.
    pub(super) version_args: &'static [&'static str],
}

/// A tool that answers.
#[derive(Clone, Debug)]
pub(super) struct Tool {
    command: Vec<OsString>,
    /// As it prints it.
    pub(super) version: String,
    /// The interpreter it was installed for.
    pub(super) python: Option<PathBuf>,
}

impl Tool {
    pub(super) fn command(&self) -> Command {
        let mut words = self.command.iter();
        let mut command = Command::new(words.next().cloned().unwrap_or_default());
        command.args(words);
        command
    }
}

impl Package {
    /// Looks into the project's own virtual environment, the active one and the folder of tools, and then for a program in
    /// the `PATH`; installs it if that is wanted.
    pub(super) fn find(&self, project: &Path, install: bool) -> Result<Tool> {
        if let Some(tool) = self.installed(project) {
            return Ok(tool);
        }
        if !install {
            let Self { name, version, download, .. } = self;
            bail!(
                "{name} is not installed; get it with one of\n  \
                 pelton build --install-tools         into {}, {download} from PyPI\n  \
                 pip install {name}=={version}    into the project's .venv, or wherever you keep such tools",
                self.folder()?.display()
            );
        }
        let folder = self.folder()?;
        let tools = folder.parent().unwrap_or(&folder);
        fs::create_dir_all(tools).with_context(|| format!("create {}", tools.display()))?;
        let lock = tools.join(format!("{}-{}.lock", self.name, self.version));
        let lock = File::create(&lock).with_context(|| format!("create {}", lock.display()))?;
        // Two builds may want it at once: the second waits for the first, and finds it there.
        if lock.try_lock().is_err() {
            eprintln!("waiting for another installation of {}", self.name);
            lock.lock().context("wait for another installation")?;
        }
        if self.own(project, &folder).is_none() {
            self.install(&folder)?;
        }
        self.in_environment(project, &folder)
            .with_context(|| format!("{} was installed into {} and does not run", self.name, folder.display()))
    }

    fn installed(&self, project: &Path) -> Option<Tool> {
        let active = env::var_os("VIRTUAL_ENV").map(PathBuf::from);
        let mut environments = [Some(project.join(".venv")), active].into_iter().flatten();
        environments
            .find_map(|folder| self.in_environment(project, &folder))
            .or_else(|| self.own(project, &self.folder().ok()?))
            .or_else(|| self.try_command(project, vec![self.program?.into()], None))
    }

    /// The one in the folder of tools, if its installation came to its end and it still runs.
    fn own(&self, project: &Path, folder: &Path) -> Option<Tool> {
        if folder.join(COMPLETE).is_file() { self.in_environment(project, folder) } else { None }
    }

    fn in_environment(&self, project: &Path, environment: &Path) -> Option<Tool> {
        let python = environment.join("bin/python");
        let program = self.program.map(|program| vec![environment.join("bin").join(program).into_os_string()]);
        let module = self.module.map(|module| vec![python.clone().into_os_string(), "-m".into(), module.into()]);
        let mut commands = program.into_iter().chain(module);
        let interpreter = Some(python.clone()).filter(|python| python.is_file());
        commands.find_map(|command| self.try_command(project, command, interpreter.clone()))
    }

    fn try_command(&self, project: &Path, command: Vec<OsString>, python: Option<PathBuf>) -> Option<Tool> {
        let (program, arguments) = command.split_first()?;
        let arguments: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
        let printed = ask(project, program, &[&arguments, self.version_args].concat())?;
        let version = printed.rsplit(' ').next().unwrap_or_default().to_owned();
        if !self.fits(&version) {
            eprintln!("{} {version} is passed over: {} is needed", Path::new(&command[0]).display(), self.version);
            return None;
        }
        Some(Tool { command, version, python })
    }

    /// Versions before 1.0 may differ in anything; up to the last number they are as good as the one that was tried.
    fn fits(&self, version: &str) -> bool {
        self.version
            .rsplit_once('.')
            .is_some_and(|(needed, _)| version.rsplit_once('.').is_some_and(|(found, _)| found == needed))
    }

    fn folder(&self) -> Result<PathBuf> {
        Ok(tools_folder()?.join(format!("{}-{}", self.name, self.version)))
    }

    fn install(&self, folder: &Path) -> Result<()> {
        let python = python()?;
        let requirement = format!("{}=={}", self.name, self.version);
        eprintln!("installing {requirement} into {} ({} from PyPI)", folder.display(), self.download);
        run(Command::new(python).args(["-m", "venv", "--clear"]).arg(folder), "python3 -m venv")
            .context("Debian has it in a package of its own: apt install python3-venv")?;
        let mut pip = Command::new(folder.join("bin/python"));
        pip.args([
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--quiet",
            "--progress-bar",
            "on",
            &requirement,
        ]);
        run(&mut pip, "pip install")?;
        fs::write(folder.join(COMPLETE), "").with_context(|| format!("write to {}", folder.display()))
    }
}

/// Installs what a project asks for into a folder of its own, without what is there already.
pub(super) fn pip_into(folder: &Path, python: &Path, requirements: &[String]) -> Result<()> {
    let mut pip = Command::new(python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--quiet",
        "--upgrade",
        "--no-compile",
        "--no-warn-conflicts",
        "--target",
    ]);
    run(pip.arg(folder).args(requirements), "pip install")
}

fn tools_folder() -> Result<PathBuf> {
    let given = env::var_os(TOOLS_VAR).filter(|given| !given.is_empty()).map(PathBuf::from);
    let data = || env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|data| data.is_absolute());
    let data = || data().or_else(|| Some(env::home_dir()?.join(".local/share")));
    given
        .or_else(|| Some(data()?.join("pelton/tools")))
        .with_context(|| format!("there is no home folder to keep tools in; name one in {TOOLS_VAR}"))
}

/// The interpreter that makes environments.
fn python() -> Result<&'static str> {
    let found = ask(Path::new("."), "python3", &["--version"]);
    let found =
        found.context("python3 is not installed; get Python 3.10 or later, with: apt install python3 python3-venv")?;
    let minor = found.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
    ensure!(minor.is_some_and(|minor| minor >= 10), "{found} is too old; expected Python 3.10 or later");
    Ok("python3")
}

fn run(command: &mut Command, what: &str) -> Result<()> {
    // Standard output is for what the build has to say.
    let status =
        command.stdin(Stdio::null()).stdout(std::io::stderr()).status().with_context(|| format!("run {what}"))?;
    ensure!(status.success(), "{what} failed ({status})");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Package = Package {
        name: "no-such-tool",
        version: "1.2.3",
        download: "1 MB",
        program: Some("no-such-tool-of-pelton"),
        module: None,
        version_args: &["--version"],
    };

    #[test]
    fn a_missing_tool_is_told_how_to_get() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let error = NOTHING.find(dir.path(), false).expect_err("not there").to_string();
        assert!(error.starts_with("no-such-tool is not installed; get it with one of"), "{error}");
        assert!(error.contains("pelton build --install-tools") && error.contains("no-such-tool-1.2.3"), "{error}");
        assert!(error.contains("pip install no-such-tool==1.2.3"), "{error}");
    }

    #[test]
    fn the_projects_own_environment_goes_first() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("temporary folder");
        let bin = dir.path().join(".venv/bin");
        fs::create_dir_all(&bin).expect("folder");
        let program = bin.join("no-such-tool-of-pelton");
        fs::write(&program, "#!/bin/sh\necho no-such-tool 1.2.9\n").expect("write");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("mode");
        let tool = NOTHING.find(dir.path(), false).expect("it is there");
        assert!(!NOTHING.fits("1.3.0") && !NOTHING.fits("1.2") && !NOTHING.fits(""));
        assert_eq!((tool.version.as_str(), tool.python), ("1.2.9", None));
    }
}
