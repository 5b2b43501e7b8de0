//! One nutcpc with a configuration file and a place for its socket, and what is asked of it.

use anyhow::{Context, Result};
use lab::{Lab, Proc, Spec, addr, binary, wait_some};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// The server of the lab, as its client calls it.
pub(crate) const FIRST: &str = "10.81.0.1:4129";

/// A user of the client host, with files of their own.
pub(crate) struct Home {
    pub(crate) user: &'static str,
    uid: Option<u32>,
    pub(crate) dir: PathBuf,
    client: Spec,
}

impl Home {
    /// The home of who runs the lab, or of another user, with a configuration of these servers and these lines at its top.
    pub(crate) fn new(
        lab: &Lab,
        user: &'static str,
        uid: Option<u32>,
        servers: &[&str],
        more: &str,
    ) -> Result<Self> {
        let mut client = match uid {
            Some(uid) => lab.client_as(user, uid)?,
            None => lab.client(user)?,
        };
        let dir = match uid {
            Some(_) => client.dir.clone(),
            None => lab.dir().join(format!("home-{user}")),
        };
        let runtime = dir.join("run");
        std::fs::create_dir_all(&runtime)?;
        let files = if uid.is_some() {
            (dir.join("password"), dir.join("ca.crt"))
        } else {
            (lab.dir().join("password"), lab.dir().join("pki/ca.crt"))
        };
        let mut text = format!(
            "user = \"{user}\"\npassword-file = \"{}\"\nca = \"{}\"\n{more}\n",
            files.0.display(),
            files.1.display()
        );
        for server in servers {
            text.push_str("[[server]]\nname = \"nuauth.lab\"\naddress = \"");
            text.push_str(server);
            text.push_str("\"\n");
        }
        let config = dir.join("nutcpc.toml");
        std::fs::write(&config, text)?;
        for path in [&dir, &runtime, &config] {
            std::os::unix::fs::chown(path, uid, uid)?;
        }
        client.args = vec!["--config".into(), config.into()];
        client
            .env
            .push(("XDG_RUNTIME_DIR".to_owned(), runtime.display().to_string()));
        Ok(Self {
            user,
            uid,
            dir,
            client,
        })
    }

    /// Starts the client and waits until it is logged in everywhere.
    pub(crate) fn start(&self, lab: &Lab) -> Result<Proc> {
        let client = self.client.clone().start()?;
        self.wait_status(lab, 0)?;
        Ok(client)
    }

    /// Exit code and what was printed by `nutcpc` with these words, as this user.
    pub(crate) fn ask(&self, lab: &Lab, words: &[&str]) -> Result<(i32, String)> {
        let program = if self.uid.is_some() {
            self.client.program.clone()
        } else {
            binary("nutcpc")?
        };
        let host = &lab.net.client;
        let command = || -> Result<_> {
            let mut command = std::process::Command::new(program);
            command.args(words).envs(self.client.env.iter().cloned());
            Ok(command.output()?)
        };
        let output = host.enter_as(self.uid, command)??;
        let code = output.status.code().context("it was killed")?;
        Ok((code, String::from_utf8(output.stdout)?))
    }

    /// Waits until `nutcpc status` ends with this code, and gives what it says of each server.
    pub(crate) fn wait_status(&self, lab: &Lab, code: i32) -> Result<Vec<Value>> {
        wait_some(&format!("status {code} of {}", self.user), PATIENCE, || {
            let (found, text) = self.ask(lab, &["status", "--json"])?;
            if found != code {
                return Ok(None);
            }
            let answer: Value = serde_json::from_str(&text)?;
            Ok(answer["servers"].as_array().cloned())
        })
    }
}

/// A second server with a log of its own, beside the lab's first; started, with its port let through.
pub(crate) fn second_server(lab: &Lab) -> Result<Proc> {
    let text = std::fs::read_to_string(lab.dir().join("nuauth.toml"))?;
    let second = text
        .replace("server-number = 1", "server-number = 2")
        .replace(":4128", ":5128")
        .replace(":4129", ":5129")
        .replace("nulog.db", "nulog2.db")
        .replace("nuauth.sock", "nuauth2.sock")
        .replace(
            "[log]\n",
            &format!("[log]\nspool = \"{}/spool2.db\"\n", lab.dir().display()),
        );
    let file = lab.dir().join("nuauth2.toml");
    std::fs::write(&file, second)?;
    let mut server = lab.server_with(&file)?.start()?;
    server.wait_log("ready")?;
    let at = addr::GATEWAY4;
    lab.net.iptables(&format!(
        "-t mangle -I FORWARD -d {at} -p tcp --dport 5129 -j ACCEPT"
    ))?;
    Ok(server)
}
