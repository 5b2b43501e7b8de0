//! Debian packages of programs that are built, from the `[package.metadata.deb]` of their crates.
//!
//! The same metadata that `cargo deb` reads, so that either makes the packages; this needs dpkg-deb(1) alone and builds no
//! program.

use crate::command::checked;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where metadata says that programs are.
const BUILT: &str = "target/release/";
/// Revision of the packaging, after the version of the programs.
const REVISION: &str = "1";
/// Shared libraries that programs may be linked with beside those of every program, and the packages that they are in.
const LIBRARIES: [(&str, &str); 2] = [
    ("libpam.so.0", "libpam0g"),
    ("libgssapi_krb5.so.2", "libgssapi-krb5-2 (>= 1.19)"),
];
/// A symbol's version of the GNU C library begins so.
const GLIBC: &[u8] = b"GLIBC_2.";

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Crate>,
}

#[derive(Deserialize)]
struct Crate {
    version: String,
    description: Option<String>,
    manifest_path: PathBuf,
    metadata: Option<Tables>,
}

#[derive(Deserialize)]
struct Tables {
    deb: Option<Deb>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Deb {
    name: String,
    maintainer: String,
    license_file: (String, String),
    section: String,
    priority: String,
    depends: String,
    recommends: Option<String>,
    suggests: Option<String>,
    extended_description: String,
    maintainer_scripts: Option<PathBuf>,
    #[serde(default)]
    conf_files: Vec<String>,
    assets: Vec<(String, String, String)>,
}

/// Makes every package of the workspace at `root` in the directory `out`, of the programs in `programs`; gives their files.
/// Small ones take their time; what is only tried out is not compressed.
pub fn packages(root: &Path, programs: &Path, out: &Path, small: bool) -> Result<Vec<PathBuf>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let metadata = checked(
        Command::new(cargo)
            .args([
                "metadata",
                "--format-version=1",
                "--no-deps",
                "--offline",
                "--locked",
            ])
            .current_dir(root),
    )?;
    let metadata: Metadata = serde_json::from_str(&metadata).context("what `cargo metadata` prints")?;
    let architecture = checked(Command::new("dpkg").arg("--print-architecture"))?;
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let mut made = Vec::new();
    for package in &metadata.packages {
        if let Some(deb) = package.metadata.as_ref().and_then(|tables| tables.deb.as_ref()) {
            let file = make(package, deb, architecture.trim(), programs, out, small)
                .with_context(|| format!("the package {}", deb.name))?;
            made.push(file);
        }
    }
    made.sort();
    Ok(made)
}

/// The files that an asset with a star in its name means; none is a mistake.
fn matching(base: &Path, source: &str) -> Result<Vec<PathBuf>> {
    let (directory, name) = source.rsplit_once('/').context("an asset without a directory")?;
    let (before, after) = name.split_once('*').context("a star in a directory")?;
    let mut files: Vec<PathBuf> = fs::read_dir(base.join(directory))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.retain(|file| {
        let name = file
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
    });
    files.sort();
    anyhow::ensure!(!files.is_empty(), "{source} means no file");
    Ok(files)
}

fn make(
    package: &Crate,
    deb: &Deb,
    architecture: &str,
    programs: &Path,
    out: &Path,
    small: bool,
) -> Result<PathBuf> {
    let base = package.manifest_path.parent().unwrap_or(Path::new("/"));
    let staged = tempfile::tempdir()?;
    fs::set_permissions(staged.path(), PermissionsExt::from_mode(0o755))?;
    let (mut libc, mut libraries) = (None, Vec::new());
    for (source, target, mode) in &deb.assets {
        if source.contains('*') {
            for source in matching(base, source)? {
                let name = source.file_name().context("an asset without a name")?;
                install(&source, &staged.path().join(target).join(name), mode)?;
            }
            continue;
        }
        let source = match source.strip_prefix(BUILT) {
            Some(program) => {
                let program = programs.join(program);
                let bytes = fs::read(&program)
                    .with_context(|| format!("{} is not built: cargo build --release", program.display()))?;
                libc = libc.max(newest_glibc(&bytes));
                libraries.extend(linked_with(&bytes));
                program
            }
            None => base.join(source),
        };
        let target = if target.ends_with('/') {
            let name = source.file_name().context("an asset without a name")?;
            Path::new(target).join(name)
        } else {
            PathBuf::from(target)
        };
        install(&source, &staged.path().join(target), mode)?;
    }
    let licence = base.join(&deb.license_file.0);
    let target = staged
        .path()
        .join("usr/share/doc")
        .join(&deb.name)
        .join("copyright");
    install(&licence, &target, "644")?;

    let control = staged.path().join("DEBIAN");
    fs::create_dir(&control)?;
    for file in &deb.conf_files {
        let shipped = staged.path().join(file.trim_start_matches('/'));
        ensure!(shipped.is_file(), "{file} is a conffile, but no asset");
    }
    if !deb.conf_files.is_empty() {
        fs::write(control.join("conffiles"), deb.conf_files.join("\n") + "\n")?;
    }
    if let Some(scripts) = &deb.maintainer_scripts {
        for script in fs::read_dir(base.join(scripts))? {
            let script = script?;
            install(&script.path(), &control.join(script.file_name()), "755")?;
        }
    }
    fs::write(
        control.join("control"),
        control_text(
            package,
            deb,
            architecture,
            (libc, libraries),
            size(staged.path())?,
        )?,
    )?;
    let file = out.join(format!(
        "{}_{}-{REVISION}_{architecture}.deb",
        deb.name, package.version
    ));
    checked(
        Command::new("dpkg-deb")
            .args([
                "--root-owner-group",
                if small { "-Zxz" } else { "-Znone" },
                "--build",
            ])
            .arg(staged.path())
            .arg(&file),
    )?;
    Ok(file)
}

fn install(source: &Path, target: &Path, mode: &str) -> Result<()> {
    let mode = u32::from_str_radix(mode, 8).with_context(|| format!("{mode} is no mode"))?;
    let directory = target.parent().context("a target without a directory")?;
    fs::create_dir_all(directory)?;
    fs::copy(source, target).with_context(|| format!("cannot copy {}", source.display()))?;
    fs::set_permissions(target, PermissionsExt::from_mode(mode))?;
    Ok(())
}

/// deb-control(5).
fn control_text(
    package: &Crate,
    deb: &Deb,
    architecture: &str,
    (libc, mut libraries): (Option<u32>, Vec<&str>),
    kibibytes: u64,
) -> Result<String> {
    libraries.sort_unstable();
    libraries.dedup();
    let depends = match (deb.depends.contains("$auto"), libc) {
        (true, Some(minor)) => {
            let usual = format!("libc6 (>= 2.{minor}), libgcc-s1");
            let all = std::iter::once(usual.as_str()).chain(libraries);
            deb.depends.replace("$auto", &all.collect::<Vec<_>>().join(", "))
        }
        (true, None) => bail!("no program says which C library it needs"),
        (false, _) => deb.depends.clone(),
    };
    let mut text = format!(
        "Package: {}\nVersion: {}-{REVISION}\nArchitecture: {architecture}\nMaintainer: {}\nSection: {}\nPriority: {}\nInstalled-Size: {kibibytes}\nDepends: {depends}\n",
        deb.name, package.version, deb.maintainer, deb.section, deb.priority,
    );
    for (field, value) in [("Recommends", &deb.recommends), ("Suggests", &deb.suggests)] {
        if let Some(value) = value {
            writeln!(text, "{field}: {value}")?;
        }
    }
    let short = package
        .description
        .as_deref()
        .context("the crate has no description")?;
    writeln!(text, "Description: {short}")?;
    for line in deb.extended_description.trim().lines() {
        writeln!(text, " {line}")?;
    }
    Ok(text)
}

/// The newest minor version of the GNU C library whose symbols a program needs.
fn newest_glibc(program: &[u8]) -> Option<u32> {
    let mut newest = None;
    // Whole words of a text, as the table of versions has them; other bytes end a word as a zero does.
    for word in program.split(|byte| !byte.is_ascii_graphic()) {
        if let Some(minor) = word.strip_prefix(GLIBC)
            && let Ok(minor) = std::str::from_utf8(minor)
        {
            newest = newest.max(minor.split('.').next().and_then(|minor| minor.parse().ok()));
        }
    }
    newest
}

/// The packages of the further shared libraries that a program names, as the dynamic linker reads it.
fn linked_with(program: &[u8]) -> impl Iterator<Item = &'static str> {
    let named: Vec<&[u8]> = program.split(|byte| *byte == 0).collect();
    LIBRARIES
        .into_iter()
        .filter(move |(library, _)| named.contains(&library.as_bytes()))
        .map(|(_, package)| package)
}

/// Kibibytes of everything below a directory, rounded up for each file.
fn size(directory: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let file = entry.metadata()?;
        sum += if file.is_dir() {
            size(&entry.path())?
        } else {
            file.len().div_ceil(1024)
        };
    }
    Ok(sum)
}
