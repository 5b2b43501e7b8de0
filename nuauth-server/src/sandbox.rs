//! What the server may do once its ports are open: read its files, write its log, spool and socket, reach its database.
//!
//! Says what is needed; the kernel's part is in `nufw_common::sandbox`.

use crate::config::ServerConfig;
use nufw_common::exit::{Exit, Failure, OrExit as _};
use nufw_common::listen::Place;
use nufw_common::privileges::{self, Capability};
use nufw_common::sandbox::{Family, Profile};
use std::path::{Path, PathBuf};

/// Authorities that the system trusts, beside what `/etc` has.
pub(crate) const TRUSTED: [&str; 3] = [
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/var/lib/ca-certificates",
];

/// Becomes the configured user. Until the profile takes these too, it keeps what opens ports below 1024 and what empties the
/// bounding set. Says whether the user is another one than before.
pub(crate) fn own_user(config: &ServerConfig) -> Result<bool, Failure> {
    let keep = [Capability::CAP_NET_BIND_SERVICE, Capability::CAP_SETPCAP];
    let changed = match &config.privileges.user {
        Some(user) => privileges::become_user(user, &keep)?,
        None => false,
    };
    privileges::keep_only(&keep).or_exit(Exit::OsErr)?;
    Ok(changed)
}

/// No capability, no program. Files that a reload reads may be replaced by renames.
pub(crate) fn profile(config: &ServerConfig) -> Profile {
    let (tls, log) = (&config.tls, &config.log);
    let files = [
        &config.path,
        &config.users,
        &config.policy,
        &tls.certificate,
        &tls.key,
        &tls.ca,
    ];
    let mut profile = files
        .into_iter()
        .chain(&tls.crl)
        .chain(&log.password_file)
        .chain(&config.identify.leases)
        .chain(config.directories.files())
        .fold(Profile::new("nuauth-server"), |profile, file| {
            profile.read_replaceable(file)
        })
        .read(config.path.with_extension("d"))
        .write(directory(&log.spool.path))
        // The service manager, a local database, and who asks this server.
        .family(Family::Unix);
    if let Some(tickets) = &config.tickets {
        profile = profile.write(directory(&tickets.file));
    }
    if let Some(radius) = &config.identify.radius {
        // A reload reads its secret again. Answers go by the sockets that are open.
        profile = profile.read_replaceable(&radius.secret_file);
    }
    if !config.control.readers.is_empty() || !config.control.admins.is_empty() {
        // A reload looks the numbers of groups up again.
        profile = profile.read_replaceable(Path::new("/etc/group"));
    }
    let metrics = config.metrics.clone().and_then(Place::socket);
    for socket in config.control.socket.iter().chain(&metrics) {
        profile = profile.sockets(directory(socket));
    }
    if let Some(file) = log.database.file() {
        profile = profile.write(directory(file));
    }
    if let Some((port, certificates)) = log.database.network() {
        profile = profile.resolver().connect(port);
        for authority in TRUSTED.iter().map(PathBuf::from) {
            profile = profile.read(authority);
        }
        for variable in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
            if let Some(path) = std::env::var_os(variable) {
                profile = profile.read(path);
            }
        }
        for file in certificates {
            profile = profile.read_replaceable(&file);
        }
    }
    profile
}

fn directory(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}
