//! A private slapd: its own directory, ports and certificate.

use crate::{wait_until, write};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use std::fmt::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// The server; it ends with this value.
pub(crate) struct Slapd {
    process: Child,
    pub(crate) ca: Vec<u8>,
    ldap: u16,
    ldaps: u16,
    _dir: TempDir,
}

/// Somebody may take a port between its choice and the start.
const ATTEMPTS: usize = 5;

/// The entries that every test has: alice, bob whose name is a part of another's, and two groups.
const ENTRIES: &str = "\
dn: dc=example,dc=org
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: ou=people,dc=example,dc=org
objectClass: organizationalUnit
ou: people

dn: ou=groups,dc=example,dc=org
objectClass: organizationalUnit
ou: groups

dn: cn=reader,dc=example,dc=org
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: reader
userPassword: reads

dn: uid=alice,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
objectClass: posixAccount
cn: Alice
sn: Liddell
uid: alice
uidNumber: 1001
gidNumber: 100
homeDirectory: /home/alice
userPassword: wonderland
memberOf: cn=staff,ou=groups,dc=example,dc=org

dn: uid=bob,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
objectClass: posixAccount
cn: Bob
sn: B
uid: bob
uidNumber: 1002
gidNumber: 100
homeDirectory: /home/bob
userPassword: builder

dn: uid=root,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
objectClass: posixAccount
cn: Root
sn: R
uid: root
uidNumber: 0
gidNumber: 0
homeDirectory: /root
userPassword: toor

dn: cn=staff,ou=groups,dc=example,dc=org
objectClass: groupOfNames
cn: staff
member: uid=alice,ou=people,dc=example,dc=org

dn: cn=admins,ou=groups,dc=example,dc=org
objectClass: groupOfNames
cn: admins
member: uid=alice,ou=people,dc=example,dc=org
member: uid=bob,ou=people,dc=example,dc=org

";

impl Slapd {
    /// Starts one with the usual entries and a group of everybody, if it shall have so many members.
    pub(crate) fn start(members: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = certificates(dir.path());
        configure(dir.path());
        let mut entries = ENTRIES.to_owned();
        if members > 0 {
            entries.push_str(
                "dn: cn=everybody,ou=groups,dc=example,dc=org\nobjectClass: groupOfNames\ncn: everybody\n",
            );
            for n in 0..members {
                writeln!(entries, "member: uid=pupil{n},ou=people,dc=example,dc=org").unwrap();
            }
            entries.push_str("member: uid=alice,ou=people,dc=example,dc=org\n\n");
        }
        write(&dir.path().join("entries.ldif"), &entries);
        let run = |program: &str| {
            let mut command = Command::new(program);
            command.arg("-f").arg(dir.path().join("slapd.conf"));
            command
        };
        let added = run("/usr/sbin/slapadd")
            .args(["-q", "-l"])
            .arg(dir.path().join("entries.ldif"))
            .output()
            .expect("slapadd (Debian package slapd) cannot be run");
        assert!(
            added.status.success(),
            "{}",
            String::from_utf8_lossy(&added.stderr)
        );
        for _ in 0..ATTEMPTS {
            let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
            let [ldap, ldaps] = ports.map(|listener| listener.local_addr().unwrap().port());
            let urls = format!("ldap://127.0.0.1:{ldap} ldaps://127.0.0.1:{ldaps}");
            let mut process = run("/usr/sbin/slapd")
                .args(["-d", "0", "-h", &urls])
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut has_ended = false;
            wait_until("slapd answers", || {
                has_ended = process.try_wait().unwrap().is_some();
                has_ended || TcpStream::connect(("127.0.0.1", ldaps)).is_ok()
            });
            if !has_ended {
                return Self {
                    process,
                    ca,
                    ldap,
                    ldaps,
                    _dir: dir,
                };
            }
        }
        panic!("slapd cannot be started");
    }

    /// The name is one that the certificate proves.
    pub(crate) fn ldap(&self) -> String {
        format!("ldap://localhost:{}", self.ldap)
    }

    pub(crate) fn ldaps(&self) -> String {
        format!("ldaps://localhost:{}", self.ldaps)
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configure(dir: &Path) {
    std::fs::create_dir(dir.join("db")).unwrap();
    let schemas: String = ["core", "cosine", "inetorgperson", "nis"]
        .iter()
        .fold(String::new(), |text, name| {
            text + &format!("include /etc/ldap/schema/{name}.schema\n")
        });
    let dir = dir.display();
    let text = format!(
        "{schemas}modulepath /usr/lib/ldap\nmoduleload back_mdb\nmoduleload memberof\n\
         pidfile {dir}/pid\nargsfile {dir}/args\n\
         TLSCertificateFile {dir}/server.crt\nTLSCertificateKeyFile {dir}/server.key\n\
         security simple_bind=1\n\
         database mdb\nsuffix \"dc=example,dc=org\"\nrootdn \"cn=admin,dc=example,dc=org\"\n\
         directory {dir}/db\nmaxsize 268435456\nindex uid,member eq\n\
         access to attrs=userPassword by * auth\n\
         access to * by dn=\"cn=reader,dc=example,dc=org\" read by * auth\n"
    );
    write(Path::new(&format!("{dir}/slapd.conf")), &text);
}

/// An authority and a certificate for `localhost`.
fn certificates(dir: &Path) -> Vec<u8> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "directory CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &ca).unwrap();
    write(&dir.join("server.crt"), &certificate.pem());
    write(&dir.join("server.key"), &key.serialize_pem());
    ca.pem().into_bytes()
}
