//! Running other programs: the system's tools and the project's own binaries.
//!
//! A tool that fails becomes an error that carries what it wrote to stderr.

use anyhow::{Context, Result, bail};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Programs that the lab calls, each with the Debian package that has it.
const TOOLS: [(&str, &str); 5] = [
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("ip6tables", "iptables"),
    ("conntrack", "conntrack"),
    ("sqlite3", "sqlite3"),
];

/// Runs a command to its end and gives its stdout; fails with its stderr.
pub fn checked(command: &mut Command) -> Result<String> {
    fed(command, "")
}

/// Like [`checked`], with something on stdin.
pub fn fed(command: &mut Command, input: &str) -> Result<String> {
    let shown = shown(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends without reading its input says why in its status.
        stdin.write_all(input.as_bytes()).ok();
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("cannot wait for `{shown}`"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` failed ({}): {}", output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Debian packages that are missing for the lab to run.
pub fn missing_tools() -> Vec<&'static str> {
    let mut packages: Vec<_> = TOOLS
        .iter()
        .filter(|(tool, _)| in_path(tool).is_none())
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    packages
}

/// Where a program is found.
pub fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// A binary of the project: beside the running one, or in `NUFW_BIN_DIR`.
pub fn binary(name: &str) -> Result<PathBuf> {
    let dir = match std::env::var_os("NUFW_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => own_dir()?,
    };
    let file = dir.join(name);
    if !file.is_file() {
        bail!(
            "{} is not built: run `cargo build --workspace` with the profile of this program",
            file.display()
        );
    }
    Ok(file)
}

/// The directory of the build profile: tests run one level below, in `deps`.
fn own_dir() -> Result<PathBuf> {
    let exe = std::env::current_exe().context("cannot learn the path of this program")?;
    let dir = exe.parent().unwrap_or(Path::new("/"));
    Ok(if dir.ends_with("deps") {
        dir.parent().unwrap_or(dir)
    } else {
        dir
    }
    .to_path_buf())
}
