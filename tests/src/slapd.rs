//! A private LDAP server on the gateway's host, and a server that asks it for whom its users file does not know.
//!
//! Real slapd; ends with its value.

use crate::command::fed;
use crate::{Lab, Options, checked};
use anyhow::Result;
use std::process::{Child, Command};
use toml::Value;

/// What every directory has: the group of pupils, in which is dora.
const TREE: &str = "\
dn: dc=example,dc=org\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: Example\n\n\
dn: cn=pupils,dc=example,dc=org\nobjectClass: groupOfNames\ncn: pupils\nmember: uid=dora,dc=example,dc=org\n\n";

/// The entry of dora, with this password.
pub fn dora(password: &str) -> String {
    format!(
        "\
dn: uid=dora,dc=example,dc=org\nobjectClass: inetOrgPerson\nobjectClass: posixAccount\ncn: Dora\nsn: D\nuid: dora\n\
uidNumber: 1100\ngidNumber: 100\nhomeDirectory: /home/dora\nuserPassword: {password}\n\n"
    )
}

/// Gives alice keys of the lab's password, by which she logs in without sending it.
pub fn alice_has_scram_keys(lab: &Lab) -> Result<()> {
    let keys = fed(
        lab.server_command().args(["hash-password", "--scram"]),
        "correct horse battery staple\n",
    )?;
    let users = lab.dir().join("users.toml");
    let text = std::fs::read_to_string(&users)?;
    let with_keys = format!("name = \"alice\"\nscram = \"{}\"", keys.trim());
    std::fs::write(&users, text.replace("name = \"alice\"", &with_keys))?;
    Ok(())
}

/// slapd on the gateway's host.
pub struct Slapd(Child);

impl Slapd {
    /// Starts one with these entries beside the usual ones. A directory of the same name is the one that was there before.
    pub fn start(lab: &Lab, name: &str, entries: &str) -> Result<Self> {
        let dir = lab.dir().join(name);
        let is_new = !dir.exists();
        std::fs::create_dir_all(dir.join("db"))?;
        let config = format!(
            "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n\
             include /etc/ldap/schema/inetorgperson.schema\ninclude /etc/ldap/schema/nis.schema\n\
             modulepath /usr/lib/ldap\nmoduleload back_mdb\npidfile {dir}/pid\nargsfile {dir}/args\n\
             database mdb\nsuffix \"dc=example,dc=org\"\ndirectory {dir}/db\n\
             access to attrs=userPassword by * auth\naccess to * by * read\n",
            dir = dir.display()
        );
        let file = dir.join("slapd.conf");
        std::fs::write(&file, config)?;
        if is_new {
            std::fs::write(dir.join("entries"), format!("{TREE}{entries}"))?;
            checked(
                Command::new("/usr/sbin/slapadd")
                    .arg("-f")
                    .arg(&file)
                    .args(["-q", "-l"])
                    .arg(dir.join("entries")),
            )?;
        }
        let process = lab
            .net
            .gateway
            .command("/usr/sbin/slapd")
            .args(["-d", "0", "-h", "ldap://127.0.0.1:3389", "-f"])
            .arg(&file)
            .spawn()?;
        Ok(Self(process))
    }

    /// Ends it at once.
    pub fn stop(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that asks the users file, and then slapd.
pub fn asking_slapd() -> Options {
    let list = |names: &[&str]| Value::from(names.iter().map(|name| Value::from(*name)).collect::<Vec<_>>());
    let ldap = toml::toml! {
        url = "ldap://127.0.0.1:3389"
        start-tls = false
        user-base = "dc=example,dc=org"
        group-base = "dc=example,dc=org"
    };
    let mut options = Options::prepared()
        .nuauth("users.password", list(&["file", "ldap"]))
        .nuauth("users.identity", list(&["file", "ldap"]))
        .nuauth("users.groups", list(&["file", "ldap"]))
        .nuauth("users.ldap", ldap)
        .nuauth(
            "clients.mechanisms",
            list(&["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN"]),
        );
    options.logged_in = Vec::new();
    options
}
