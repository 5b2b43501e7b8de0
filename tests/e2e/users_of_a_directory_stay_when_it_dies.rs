//! A user of an LDAP server passes by her groups there, and goes on when it dies and when the server reads everything again
//! meanwhile; logins hear that they cannot be checked. When the directory is back and does not know her any more, she is
//! thrown out. A user of the file logs in without sending her password.

use lab::{Attempt, Lab, Options, Outcome, Signal, TcpService, addr, checked, wait_for, with_lab};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;
use toml::Value;

const POLICY: &str = "[[rule]]\nname = \"pupils\"\ngroups = [\"pupils\"]\nprotocol = \"tcp\"\nports = [\"80\"]\ndecision = \"accept\"\n";

const TREE: &str = "\
dn: dc=example,dc=org\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: Example\n\n\
dn: cn=pupils,dc=example,dc=org\nobjectClass: groupOfNames\ncn: pupils\nmember: uid=dora,dc=example,dc=org\n\n";

const DORA: &str = "\
dn: uid=dora,dc=example,dc=org\nobjectClass: inetOrgPerson\nobjectClass: posixAccount\ncn: Dora\nsn: D\nuid: dora\n\
uidNumber: 1100\ngidNumber: 100\nhomeDirectory: /home/dora\nuserPassword: correct horse battery staple\n\n";

/// slapd on the gateway's host, with these entries.
struct Slapd(Child);

impl Slapd {
    fn start(lab: &Lab, name: &str, entries: &str) -> anyhow::Result<Self> {
        let dir: PathBuf = lab.dir().join(name);
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
        std::fs::write(dir.join("entries"), entries)?;
        checked(
            Command::new("/usr/sbin/slapadd")
                .arg("-f")
                .arg(&file)
                .args(["-q", "-l"])
                .arg(dir.join("entries")),
        )?;
        let process = lab
            .net
            .gateway
            .command("/usr/sbin/slapd")
            .args(["-d", "0", "-h", "ldap://127.0.0.1:3389", "-f"])
            .arg(&file)
            .spawn()?;
        Ok(Self(process))
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn options() -> Options {
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
    options.policy = POLICY.to_owned();
    options
}

#[test]
fn claim() {
    with_lab(options(), |lab| {
        let mut keys = lab.server_command();
        let keys = lab::fed(
            keys.args(["hash-password", "--scram"]),
            "correct horse battery staple\n",
        )?;
        let users = lab.dir().join("users.toml");
        let text = std::fs::read_to_string(&users)?;
        let with_keys = format!("name = \"alice\"\nscram = \"{}\"", keys.trim());
        std::fs::write(&users, text.replace("name = \"alice\"", &with_keys))?;
        let slapd = Slapd::start(lab, "one", &format!("{TREE}{DORA}"))?;
        lab.start_all()?;

        let mut alice = lab.client("alice")?.env("NUFW_LOG", "debug").start()?;
        alice.wait_log("mechanism=SCRAM-SHA-256-PLUS")?;
        alice.wait_log("logged in as alice")?;
        alice.terminate()?;

        let plain = |lab: &Lab| Ok::<_, anyhow::Error>(lab.client("dora")?.args(["--mechanism", "PLAIN"]));
        let mut dora = plain(lab)?.start()?;
        dora.wait_log("logged in as dora")?;
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let connects = |lab: &Lab| -> anyhow::Result<bool> {
            let attempt = Attempt::to(addr::SERVER4, 80).within(Duration::from_secs(2));
            Ok(attempt.run(&lab.net.client)?.outcome == Outcome::Connected)
        };
        assert!(connects(lab)?, "dora is a pupil");
        assert_eq!(
            lab.count("select count(*) from conntrack_ulog where username = 'dora' and user_id = 1100")?,
            1
        );

        drop(slapd);
        let mut late = plain(lab)?.args(["--once"]).start()?;
        let status = late.wait_exit(Duration::from_mins(1))?;
        assert_eq!(status.code(), Some(75), "{}", late.log()?);
        late.wait_log("cannot check logins at the moment")?;
        lab.server.signal(Signal::HUP)?;
        lab.server.wait_log("directories could not say")?;
        assert!(
            connects(lab)?,
            "a dead directory took away a session or its groups"
        );

        let _slapd = Slapd::start(lab, "two", TREE)?;
        lab.server.signal(Signal::HUP)?;
        dora.wait_log("the user is not known here any more")?;
        wait_for(
            "dora's connections to be dropped",
            Duration::from_secs(20),
            || Ok(!connects(lab)?),
        )
    });
}
