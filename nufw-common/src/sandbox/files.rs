//! The part of a profile that Landlock enforces: paths, TCP ports, and whom signals and abstract sockets reach.
//!
//! Rights of newer kernels are used where they exist (landlock(7)); what is missing is reported, never assumed.

use super::state::Landlock;
use super::{Mode, Profile, SandboxError};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// What the C library and the runtime read at any time: libraries that are loaded late (name services), zones, the number
/// of processors, the random device. None of it is a secret.
pub(super) const SYSTEM: [&str; 9] = [
    "/usr/lib",
    "/usr/lib64",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/dev/urandom",
    "/sys/fs/cgroup",
];

/// The newest rights that this profile was tested with (Linux 6.15).
const KNOWN: ABI = ABI::V7;
/// Where the loaders of dynamically linked programs are.
const LOADERS: [&str; 2] = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];

/// Applies the rules; `None` where the kernel has no Landlock and the mode leaves it at that.
pub(super) fn restrict(profile: &Profile, mode: Mode) -> Result<Option<Landlock>, SandboxError> {
    let all = AccessFs::from_all(KNOWN);
    let mut scope: BitFlags<Scope> = Scope::Signal.into();
    // The service manager's socket can be an abstract one (sd_notify(3)).
    let abstract_notify =
        std::env::var_os("NOTIFY_SOCKET").is_some_and(|socket| socket.as_bytes().starts_with(b"@"));
    if !abstract_notify {
        scope |= Scope::AbstractUnixSocket;
    }
    let mut ruleset = Ruleset::default().handle_access(all)?.scope(scope)?;
    if profile.connect.is_some() {
        ruleset = ruleset.handle_access(AccessNet::from_all(KNOWN))?;
    }
    let mut rules = ruleset.create()?;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    for path in &profile.read {
        rules = add(rules, path, read)?;
    }
    for path in &profile.write {
        let write = AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::RemoveFile;
        rules = add(rules, path, read | write)?;
    }
    for path in &profile.sockets {
        rules = add(rules, path, read | AccessFs::MakeSock | AccessFs::RemoveFile)?;
    }
    for path in &profile.execute {
        rules = add(rules, path, read | AccessFs::Execute)?;
    }
    if !profile.execute.is_empty() {
        for loader in LOADERS {
            rules = add(rules, Path::new(loader), AccessFs::Execute | AccessFs::ReadFile)?;
        }
        // Programs are started without input, and without anybody who hears their complaints.
        rules = add(
            rules,
            Path::new("/dev/null"),
            AccessFs::ReadFile | AccessFs::WriteFile,
        )?;
    }
    for port in profile.connect.iter().flatten() {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    if profile.connect.is_some() {
        for port in &profile.bind {
            rules = rules.add_rule(NetPort::new(*port, AccessNet::BindTcp))?;
        }
    }
    let status = rules.restrict_self()?;
    let (abi, missing) = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => (effective_abi as i32, "it takes no rule"),
        LandlockStatus::NotEnabled => (0, "it is not enabled at boot"),
        LandlockStatus::NotImplemented => (0, "it is not built in"),
    };
    match status.ruleset {
        RulesetStatus::NotEnforced if mode == Mode::Enforce => Err(SandboxError::NoLandlock(missing)),
        RulesetStatus::NotEnforced => {
            tracing::warn!(
                reason = missing,
                "this kernel has no Landlock: which files may be read and written is left to their owners and modes"
            );
            Ok(None)
        }
        status => Ok(Some(Landlock {
            abi,
            complete: status == RulesetStatus::FullyEnforced,
        })),
    }
}

/// Adds a rule, with only those rights that a file can have where it is one. What is absent gets none.
fn add(
    rules: RulesetCreated,
    path: &Path,
    rights: BitFlags<AccessFs>,
) -> Result<RulesetCreated, SandboxError> {
    let failed = |error| SandboxError::Path(path.to_path_buf(), error);
    let opened = File::options().read(true).custom_flags(O_PATH).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            tracing::debug!(path = %path.display(), "not there, so not in the sandbox's profile");
            return Ok(rules);
        }
        Err(error) => return Err(failed(error)),
    };
    let is_file = !file.metadata().map_err(failed)?.is_dir();
    let rights = if is_file {
        rights & AccessFs::from_file(KNOWN)
    } else {
        rights
    };
    let rules = rules.add_rule(PathBeneath::new(&file, rights))?;
    if path.starts_with("/proc") {
        // A directory of /proc that nobody holds is made anew with another identity, which the rule would not know.
        std::mem::forget(file);
    }
    Ok(rules)
}

/// `O_PATH` of `open(2)`: names a file without opening it.
const O_PATH: i32 = libc::O_PATH;

/// The files that starting a program opens: as it is named, its link's target, and the same under each directory of `PATH`.
pub(super) fn find_program(program: &str) -> Vec<PathBuf> {
    let candidates: Vec<PathBuf> = if program.contains('/') {
        vec![PathBuf::from(program)]
    } else {
        let path = std::env::var_os("PATH")
            .unwrap_or_else(|| OsStr::new("/usr/sbin:/usr/bin:/sbin:/bin").to_owned());
        std::env::split_paths(&path)
            .map(|directory| directory.join(program))
            .collect()
    };
    let is_program = |path: &PathBuf| {
        path.metadata()
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    candidates
        .into_iter()
        .find(is_program)
        .and_then(|path| path.canonicalize().ok())
        .into_iter()
        .collect()
}
