//! A private Kerberos realm: a real KDC, its principals, tickets of users and the keytab of a server.
//!
//! Knows nothing of the lab, so that tests of one program can have it, too. Ends with its value.

use anyhow::{Context, Result, ensure};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The realm `EXAMPLE.ORG`.
pub struct Kdc<'a> {
    process: Option<Child>,
    dir: PathBuf,
    /// How a program is run where the KDC is.
    run: Box<dyn Fn(&str) -> Command + 'a>,
}

impl<'a> Kdc<'a> {
    /// Makes a realm in this directory, with its KDC on this port of the loopback address.
    pub fn start(dir: &Path, port: u16, run: impl Fn(&str) -> Command + 'a) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let place = dir.display();
        std::fs::write(
            dir.join("krb5.conf"),
            format!(
                "[libdefaults]\n default_realm = EXAMPLE.ORG\n dns_lookup_kdc = false\n dns_canonicalize_hostname = false\n \
                 rdns = false\n[realms]\n EXAMPLE.ORG = {{\n  kdc = 127.0.0.1:{port}\n }}\n"
            ),
        )?;
        std::fs::write(
            dir.join("kdc.conf"),
            format!(
                "[kdcdefaults]\n kdc_listen = 127.0.0.1:{port}\n kdc_tcp_listen = 127.0.0.1:{port}\n[realms]\n EXAMPLE.ORG = {{\n  \
                 database_name = {place}/principal\n  key_stash_file = {place}/stash\n  \
                 supported_enctypes = aes256-cts-hmac-sha1-96:normal\n }}\n[logging]\n kdc = FILE:{place}/kdc.log\n"
            ),
        )?;
        let mut kdc = Self {
            process: None,
            dir: dir.to_owned(),
            run: Box::new(run),
        };
        kdc.done("/usr/sbin/kdb5_util", &["create", "-s", "-P", "master"])?;
        kdc.resume()?;
        Ok(kdc)
    }

    /// Starts the KDC (again), and waits until it listens.
    pub fn resume(&mut self) -> Result<()> {
        let mut command = self.command("/usr/sbin/krb5kdc");
        command.arg("-n").stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command
            .spawn()
            .context("cannot start krb5kdc: is krb5-kdc installed?")?;
        let mut said = String::new();
        if let Some(errors) = &mut process.stderr {
            BufReader::new(errors).read_line(&mut said)?;
        }
        self.process = Some(process);
        ensure!(said.contains("starting"), "krb5kdc does not start: {said}");
        Ok(())
    }

    /// Ends the KDC at once.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Makes a principal with this password.
    pub fn add(&self, principal: &str, password: &str) -> Result<()> {
        self.admin(&format!("addprinc -pw {password} {principal}"))
    }

    /// Makes the principal of a server, or new keys of it; gives a keytab with them.
    pub fn keytab(&self, principal: &str, name: &str) -> Result<PathBuf> {
        let keytab = self.dir.join(name);
        self.admin(&format!("addprinc -randkey {principal}"))?;
        self.admin(&format!("ktadd -k {} {principal}", keytab.display()))?;
        Ok(keytab)
    }

    /// Gets a ticket as a user does; gives the file that it is in.
    pub fn ticket(&self, principal: &str, password: &str) -> Result<PathBuf> {
        let cache = self.dir.join(format!("ticket-{}", principal.replace('/', "-")));
        let mut kinit = self.command("/usr/bin/kinit");
        kinit.arg("-c").arg(&cache).arg(principal);
        kinit
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut kinit = kinit
            .spawn()
            .context("cannot run kinit: is krb5-user installed?")?;
        if let Some(mut input) = kinit.stdin.take() {
            writeln!(input, "{password}")?;
        }
        let output = kinit.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kinit {principal}: {said}");
        Ok(cache)
    }

    /// What a program finds the realm by: `KRB5_CONFIG`.
    pub fn config(&self) -> PathBuf {
        self.dir.join("krb5.conf")
    }

    fn admin(&self, query: &str) -> Result<()> {
        self.done("/usr/sbin/kadmin.local", &["-q", query])
    }

    fn command(&self, program: &str) -> Command {
        let mut command = (self.run)(program);
        command
            .env("KRB5_CONFIG", self.config())
            .env("KRB5_KDC_PROFILE", self.dir.join("kdc.conf"));
        command
    }

    fn done(&self, program: &str, args: &[&str]) -> Result<()> {
        let output = self.command(program).args(args).output().with_context(|| {
            format!("cannot run {program}: are krb5-kdc and krb5-admin-server installed?")
        })?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} {args:?}: {said}");
        Ok(())
    }
}

impl Drop for Kdc<'_> {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}
