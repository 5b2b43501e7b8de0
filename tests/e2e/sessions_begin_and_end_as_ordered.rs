//! Hooks of a confined server run when sessions begin and end, also beside one that never returns; who is thrown out by
//! `nuauth-ctl` is told why, stays away, and its exit code says so; a drained server ends by itself.

use anyhow::Context;
use lab::{Options, TcpService, binary, checked, wait_for, with_lab};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

#[test]
fn claim() {
    with_lab(Options::prepared(), |lab| {
        let told = lab.dir().join("told");
        let script = lab.dir().join("hook");
        // The first login hangs: nobody waits for it.
        let text = format!(
            "#!/bin/sh\necho \"$NUFW_EVENT $1 $2 $3 $5\" >> {told}\n[ \"$NUFW_EVENT\" != login ] || exec sleep 600\n",
            told = told.display()
        );
        std::fs::write(&script, text)?;
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755))?;
        let config = format!(
            "[hooks]\nlogin = \"{0}\"\nlogout = \"{0}\"\ntimeout = \"2s\"\n[sessions]\nper-user = 1\n",
            script.display()
        );
        std::fs::create_dir(lab.dir().join("nuauth.d"))?;
        std::fs::write(lab.dir().join("nuauth.d/sessions.toml"), config)?;
        lab.start_all()?;
        let _web = TcpService::echo(&lab.net.server, 80)?;
        lab.wait_passes(80)?;

        // One session is what alice may have.
        let mut second = lab.client("alice")?.args(["--once"]).start()?;
        assert_eq!(second.wait_exit(Duration::from_mins(1))?.code(), Some(69));
        assert!(
            second.log()?.contains("as many sessions as a user may have"),
            "{}",
            second.log()?
        );

        let socket = lab.dir().join("nuauth.sock");
        let ctl = |args: &[&str]| -> anyhow::Result<String> {
            checked(
                Command::new(binary("nuauth-ctl")?)
                    .arg("--socket")
                    .arg(&socket)
                    .args(args),
            )
        };
        let users: Vec<serde_json::Value> = serde_json::from_str(&ctl(&["users", "--json"])?)?;
        assert_eq!((users.len(), &users[0]["username"]), (1, &"alice".into()));
        assert_eq!(users[0]["quality"], "password");
        let done = ctl(&["disconnect", "--pattern", "al*", "--reason", "the exam is over"])?;
        assert!(done.contains("was ended"), "{done}");
        let client = lab.clients.get_mut("alice").context("alice")?;
        assert_eq!(client.wait_exit(Duration::from_mins(1))?.code(), Some(75));
        let log = client.log()?;
        assert!(
            log.contains("the server ended the session: the exam is over"),
            "{log}"
        );
        assert_eq!(ctl(&["users", "--json"])?.trim(), "[]");
        wait_for("both hooks", Duration::from_secs(30), || {
            let told = std::fs::read_to_string(&told).unwrap_or_default();
            Ok(told.lines().count() == 2)
        })?;
        let lines = std::fs::read_to_string(&told)?;
        let lines: Vec<&str> = lines.lines().collect();
        assert!(
            lines[0].starts_with("login alice 1001 ") && lines[0].ends_with(" password"),
            "{lines:?}"
        );
        assert!(
            lines[1].starts_with("logout alice 1001 ") && lines[1].ends_with(" ordered"),
            "{lines:?}"
        );

        let hers = "select count(*) from users where username = 'alice' and end_reason = 'ordered' and end_time is not null";
        assert_eq!(lab.count(hers)?, 1);

        let drained = ctl(&["drain", "--within", "30s"])?;
        assert!(drained.contains("ends when nothing waits"), "{drained}");
        assert!(lab.server.wait_exit(Duration::from_mins(1))?.success());
        Ok(())
    });
}
