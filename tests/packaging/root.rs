//! A root directory with nothing in it but what a maintainer script needs: a shell, systemd-sysusers and their libraries.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// What is taken from this host.
const PROGRAMS: [&str; 3] = ["sh", "systemd-sysusers", "systemd-tmpfiles"];
/// Run by name services, so that ldd does not show it.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

pub(crate) struct Root {
    directory: TempDir,
}

impl Root {
    pub(crate) fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("nufw-root-").tempdir()?;
        let root = Self { directory };
        let path = root.path();
        fs::set_permissions(path, PermissionsExt::from_mode(0o755))?;
        for made in [
            "usr/bin",
            "usr/sbin",
            "usr/lib",
            "usr/lib64",
            "etc",
            "run",
            "tmp",
            "dev",
            "proc",
            "var/lib/dpkg/info",
            "var/lib/dpkg/updates",
            "var/lib/dpkg/triggers",
        ] {
            fs::create_dir_all(path.join(made))?;
        }
        for link in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{link}"), path.join(link))?;
        }
        fs::write(path.join("var/lib/dpkg/status"), "")?;
        fs::write(path.join("var/lib/dpkg/available"), "")?;
        fs::write(path.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
        fs::write(path.join("etc/group"), "root:x:0:\n")?;
        fs::write(path.join("dev/null"), "")?;
        for program in PROGRAMS {
            let file = lab::in_path(program).with_context(|| format!("{program} is missing"))?;
            root.take(&file.canonicalize()?, &Path::new("usr/bin").join(program))?;
            root.take_libraries(&file)?;
        }
        Ok(root)
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn read(&self, file: &str) -> Result<String> {
        fs::read_to_string(self.path().join(file)).with_context(|| file.to_owned())
    }

    fn take(&self, file: &Path, target: &Path) -> Result<()> {
        let target = self.path().join(target);
        fs::create_dir_all(target.parent().context("no directory")?)?;
        fs::copy(file, &target).with_context(|| format!("cannot copy {}", file.display()))?;
        Ok(())
    }

    /// Every library that the loader would load, at the place where it looks.
    fn take_libraries(&self, program: &Path) -> Result<()> {
        let listed = lab::checked(Command::new("ldd").arg(program))?;
        let files: BTreeSet<&str> = listed
            .split_whitespace()
            .filter(|word| word.starts_with('/') && Path::new(word).is_file())
            .collect();
        for file in files {
            let relative = file.trim_start_matches('/');
            self.take(&Path::new(file).canonicalize()?, Path::new(relative))?;
        }
        Ok(())
    }

    /// Installs packages as dpkg does, maintainer scripts included. What they depend on is taken from this host instead.
    pub(crate) fn install(&self, packages: &[PathBuf]) -> Result<()> {
        // systemd-tmpfiles reads /proc; a mount namespace of its own leaves nothing mounted behind.
        let script = "mount --bind /proc \"$1/proc\" && root=$1 && shift && exec dpkg --root=\"$root\" --force-depends --force-bad-path --install \"$@\"";
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", script, "sh"])
            .arg(self.path())
            .args(packages)
            .env("PATH", PATH)
            .env_remove("NOTIFY_SOCKET")
            .output()?;
        ensure!(
            output.status.success(),
            "dpkg: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        for directory in ["usr/bin", "usr/sbin"] {
            for program in fs::read_dir(self.path().join(directory))? {
                self.take_libraries(&program?.path())?;
            }
        }
        Ok(())
    }

    /// The units of the system and of users.
    pub(crate) fn units(&self) -> Result<Vec<PathBuf>> {
        let mut units = Vec::new();
        for directory in ["usr/lib/systemd/system", "usr/lib/systemd/user"] {
            for unit in fs::read_dir(self.path().join(directory))? {
                let unit = unit?.path();
                if unit.extension().is_some_and(|extension| extension == "service") {
                    units.push(unit);
                }
            }
        }
        units.sort();
        Ok(units)
    }

    /// Number and group of a user of this root.
    pub(crate) fn user(&self, name: &str) -> Result<(u32, u32)> {
        let users = self.read("etc/passwd")?;
        let mut fields = users
            .lines()
            .map(|line| line.split(':'))
            .find(|fields| fields.clone().next() == Some(name))
            .with_context(|| format!("no user {name}"))?
            .skip(2);
        let mut number = || {
            fields
                .next()
                .context("a short line")?
                .parse()
                .context("no number")
        };
        Ok((number()?, number()?))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(lab::in_path("chroot").unwrap_or_else(|| "chroot".into()));
        command
            .arg(self.path())
            .args(words)
            .env_clear()
            .env("PATH", PATH)
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Result<Output> {
        Ok(self.command(words).output()?)
    }

    pub(crate) fn checked(&self, words: &[&str]) -> Result<()> {
        let output = self.run(words)?;
        ensure!(
            output.status.success(),
            "{words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Starts a daemon as a user, with a network of its own and a service manager that listens at `/run/notify`.
    pub(crate) fn start_as(&self, words: &[&str], uid: u32, gid: u32) -> Result<Child> {
        let namespace = lab::NetNs::new()?;
        let mut command = namespace.command(lab::in_path("chroot").unwrap_or_else(|| "chroot".into()));
        command
            .arg(format!("--userspec={uid}:{gid}"))
            .arg("--groups=")
            .arg(self.path())
            .args(words)
            .args(["--sandbox", "enforce"])
            .env_clear()
            .env("PATH", PATH)
            .env("NOTIFY_SOCKET", "/run/notify")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        Ok(command.spawn()?)
    }
}
