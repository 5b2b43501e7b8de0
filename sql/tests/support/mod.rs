//! Database servers of the tests' own: in private directories, on private sockets, ended with the process however it ends.
//!
//! A shell beside each server waits for the end of its standard input, which the kernel closes with this process.

use rustix::process::{Pid, Signal};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

/// How long a server may take to answer after its start.
const PATIENCE: Duration = Duration::from_mins(1);

/// Keeps one server: obeys the words on its standard input, and ends the server and its directory when that ends.
const GUARDIAN: &str = r#"
trap '' INT HUP TERM
directory=$1 signal=$2; shift 2
begin() { "$@" >>"$directory/log" 2>&1 </dev/null & server=$!; }
begin "$@"
while read -r word; do
    case $word in
        kill) kill "-$signal" $server; wait $server ;;
        begin)
            begin "$@"
            # A process of before that is still ending keeps the new server out.
            for try in 1 2 3 4 5 6 7 8 9 10; do
                sleep 0.2
                case $(cut -d' ' -f3 "/proc/$server/stat" 2>/dev/null) in
                    Z|'') wait $server; begin "$@" ;;
                    *) break ;;
                esac
            done ;;
    esac
done
kill "-$signal" $server; wait $server
rm -rf "$directory"
"#;

/// A kind of database server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres,
    MariaDb,
}

/// What a commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The end of the server, which is all that tests try; much faster.
    Process,
    /// The end of the machine.
    Machine,
}

/// A running server.
pub(crate) struct Server {
    kind: Kind,
    directory: PathBuf,
    guardian: Child,
    words: Mutex<Option<ChildStdin>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.words.lock().unwrap().take());
        let _ = self.guardian.wait();
    }
}

/// The one server of its kind that the tests of this process share.
pub(crate) fn shared(kind: Kind) -> Result<&'static Server, &'static str> {
    static POSTGRES: OnceLock<Result<Server, String>> = OnceLock::new();
    static MARIADB: OnceLock<Result<Server, String>> = OnceLock::new();
    let server = match kind {
        Kind::Postgres => &POSTGRES,
        Kind::MariaDb => &MARIADB,
    };
    let server = server.get_or_init(|| Server::start(kind, Durability::Process));
    server.as_ref().map_err(String::as_str)
}

impl Server {
    /// Makes and starts a server; an error says what is missing.
    pub(crate) fn start(kind: Kind, durability: Durability) -> Result<Self, String> {
        let directory = tempfile::Builder::new()
            .prefix("nulog-")
            .tempdir()
            .map_err(|e| e.to_string())?;
        let (signal, command) = match kind {
            Kind::Postgres => ("QUIT", postgres(directory.path(), durability)?),
            Kind::MariaDb => ("KILL", mariadb(directory.path(), durability)?),
        };
        let directory = directory.keep();
        let mut guardian = Command::new("sh")
            .args(["-c", GUARDIAN, "guardian"])
            .arg(&directory)
            .arg(signal)
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| e.to_string())?;
        let words = Mutex::new(guardian.stdin.take());
        let server = Self {
            kind,
            directory,
            guardian,
            words,
        };
        server.wait()?;
        Ok(server)
    }

    fn say(&self, word: &str) {
        let mut words = self.words.lock().unwrap();
        writeln!(words.as_mut().unwrap(), "{word}").unwrap();
    }

    /// Ends the server as a crash would.
    pub(crate) fn kill(&self) {
        self.say("kill");
    }

    /// Starts it again.
    pub(crate) fn begin(&self) {
        self.say("begin");
        self.wait().unwrap();
    }

    /// Stops every process of the server where it is: it neither answers nor ends.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends every process of the server at once, in whatever it was doing; [`Self::begin`] starts it again.
    pub(crate) fn murder(&self) {
        self.signal(Signal::KILL);
        while !self.processes().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, signal: Signal) {
        for pid in self.processes() {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// The server's process, and those that it has started.
    fn processes(&self) -> Vec<Pid> {
        let file = match self.kind {
            Kind::Postgres => "data/postmaster.pid",
            Kind::MariaDb => "pid",
        };
        let text = std::fs::read_to_string(self.directory.join(file)).unwrap_or_default();
        let first: Option<i32> = text.lines().next().and_then(|line| line.trim().parse().ok());
        let Some(server) = first else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // PID (name) state parent …
            let Some((before, after)) = stat.rsplit_once(')') else {
                continue;
            };
            let pid: Option<i32> = before.split(' ').next().and_then(|pid| pid.parse().ok());
            let mut rest = after.split_whitespace();
            let (state, parent) = (rest.next(), rest.next().and_then(|pid| pid.parse::<i32>().ok()));
            let ours = before.contains("(postgres") || before.contains("(mariadbd");
            if state != Some("Z") && ours && (pid == Some(server) || parent == Some(server)) {
                found.extend(pid.and_then(Pid::from_raw));
            }
        }
        found
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file of its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join(match self.kind {
            Kind::Postgres => ".s.PGSQL.5432",
            Kind::MariaDb => "socket",
        })
    }

    /// Where to find a database of it, as its administrator.
    pub(crate) fn url(&self, database: &str) -> String {
        self.url_through(database, "nufw", &self.directory)
    }

    /// The same through a socket of the same name in another directory, or as another user.
    pub(crate) fn url_through(&self, database: &str, user: &str, directory: &Path) -> String {
        let directory = directory.display();
        match self.kind {
            Kind::Postgres => format!("postgres://{user}@localhost/{database}?host={directory}"),
            Kind::MariaDb => format!("mysql://{user}@localhost/{database}?socket={directory}/socket"),
        }
    }

    fn wait(&self) -> Result<(), String> {
        let attempts = 200;
        for _ in 0..attempts {
            if block_on(execute(self.kind, &self.url(self.own_database()), "SELECT 1")).is_ok() {
                return Ok(());
            }
            std::thread::sleep(PATIENCE / attempts);
        }
        let log = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let log: Vec<&str> = log.lines().take(40).collect();
        let log = log.join("\n");
        Err(format!("the server does not answer; it says: {log}"))
    }

    fn own_database(&self) -> &'static str {
        match self.kind {
            Kind::Postgres => "postgres",
            Kind::MariaDb => "mysql",
        }
    }

    /// A new empty database, by name.
    pub(crate) async fn database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("nulog_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let statement = format!("CREATE DATABASE {name}");
        execute(self.kind, &self.url(self.own_database()), &statement)
            .await
            .unwrap();
        name
    }
}

impl Server {
    /// A new account with one role of `sql/grants` in this database; where to find the database with it.
    pub(crate) async fn account(&self, database: &str, role: &str) -> String {
        let administrator = self.url(database);
        execute(self.kind, &administrator, grants(self.kind))
            .await
            .unwrap();
        let account = format!("{role}_of_{database}");
        let make = match self.kind {
            Kind::Postgres => format!("CREATE ROLE {account} LOGIN IN ROLE nufw_{role}"),
            Kind::MariaDb => format!(
                "CREATE USER {account}@localhost; GRANT nufw_{role} TO {account}@localhost; \
                 SET DEFAULT ROLE nufw_{role} FOR {account}@localhost"
            ),
        };
        execute(self.kind, &administrator, &make).await.unwrap();
        self.url_through(database, &account, &self.directory)
    }
}

/// The file of `sql/grants` for this kind.
pub(crate) fn grants(kind: Kind) -> &'static str {
    match kind {
        Kind::Postgres => include_str!("../../grants/postgres.sql"),
        Kind::MariaDb => include_str!("../../grants/mysql.sql"),
    }
}

/// Says so where a test cannot run; not captured by the harness, as what a passing test prints is.
pub(crate) fn skip(test: &str, kind: Kind, reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: no {kind:?} here ({reason})");
}

/// Runs statements that give nothing back.
pub(crate) async fn execute(kind: Kind, url: &str, statements: &str) -> Result<(), sqlx::Error> {
    let text = AssertSqlSafe(statements.to_owned());
    match kind {
        Kind::Postgres => {
            let options: sqlx::postgres::PgConnectOptions = url.parse()?;
            let mut connection = options.connect().await?;
            connection.execute(sqlx::raw_sql(text)).await?;
            connection.close().await
        }
        Kind::MariaDb => {
            let options: sqlx::mysql::MySqlConnectOptions = url.parse()?;
            let mut connection = options.connect().await?;
            connection.execute(sqlx::raw_sql(text)).await?;
            connection.close().await
        }
    }
}

/// Waits for a future where there may be a runtime already.
fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(future)
        });
        thread.join().unwrap()
    })
}

/// `PostgreSQL` refuses to run as root: what is root here becomes somebody else in a user namespace of its own.
fn as_nobody(program: &Path) -> Vec<String> {
    let program = program.display().to_string();
    if rustix::process::geteuid().is_root() {
        let unshare = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"];
        let mut command: Vec<String> = unshare.map(str::to_owned).to_vec();
        command.push(program);
        command
    } else {
        vec![program]
    }
}

fn run(command: &[String], what: &str) -> Result<(), String> {
    let output = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{what}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{what}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// Makes a cluster; the command that runs it.
fn postgres(directory: &Path, durability: Durability) -> Result<Vec<String>, String> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .map_err(|_| "PostgreSQL is not installed (Debian package postgresql)".to_owned())?;
    let newest = versions
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .max()
        .ok_or("PostgreSQL is not installed (Debian package postgresql)")?;
    let programs = PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin"));
    let data = directory.join("data").display().to_string();
    let mut make = as_nobody(&programs.join("initdb"));
    let options = "-U nufw -A trust -E UTF8 --locale=C --no-sync -D";
    make.extend(options.split(' ').map(str::to_owned));
    make.push(data.clone());
    run(&make, "initdb")?;
    let mut serve = as_nobody(&programs.join("postgres"));
    let directory = directory.display();
    serve.push(format!("-D{data}"));
    for setting in [
        "listen_addresses=".to_owned(),
        format!("unix_socket_directories={directory}"),
        match durability {
            Durability::Process => "fsync=off".to_owned(),
            Durability::Machine => "fsync=on".to_owned(),
        },
        "max_connections=200".to_owned(),
        // Nothing may depend on it.
        "timezone=Asia/Kathmandu".to_owned(),
        "default_transaction_isolation=repeatable read".to_owned(),
    ] {
        serve.extend(["-c".to_owned(), setting]);
    }
    Ok(serve)
}

fn mariadb(directory: &Path, durability: Durability) -> Result<Vec<String>, String> {
    let missing = || "MariaDB is not installed (Debian package mariadb-server)".to_owned();
    let find = |name: &str| {
        ["/usr/sbin", "/usr/bin", "/usr/local/bin"]
            .iter()
            .map(|place| Path::new(place).join(name))
            .find(|path| path.exists())
            .ok_or_else(missing)
    };
    let user = if rustix::process::geteuid().is_root() {
        vec!["--user=root".to_owned()]
    } else {
        vec![]
    };
    let data = format!("--datadir={}", directory.join("data").display());
    // A server that starts removes what it takes for its own temporary tables: in a shared directory its neighbours'.
    let temporary = directory.join("tmp");
    std::fs::create_dir_all(&temporary).map_err(|e| e.to_string())?;
    let temporary = format!("--tmpdir={}", temporary.display());
    let mut make = vec![
        find("mariadb-install-db")?.display().to_string(),
        "--no-defaults".to_owned(),
    ];
    make.extend(user.clone());
    let options = ["--auth-root-authentication-method=normal", "--skip-test-db"];
    make.extend(options.map(str::to_owned));
    make.extend([data.clone(), temporary.clone()]);
    run(&make, "mariadb-install-db")?;
    let init = directory.join("init.sql");
    let accounts =
        "CREATE USER IF NOT EXISTS nufw@localhost;\nGRANT ALL ON *.* TO nufw@localhost WITH GRANT OPTION;\n";
    std::fs::write(&init, accounts).map_err(|e| e.to_string())?;
    let mut serve = vec![
        find("mariadbd")?.display().to_string(),
        "--no-defaults".to_owned(),
    ];
    serve.extend(user);
    serve.extend([
        data,
        format!("--socket={}", directory.join("socket").display()),
        temporary,
        format!("--pid-file={}", directory.join("pid").display()),
        format!("--init-file={}", init.display()),
        "--skip-networking".to_owned(),
        match durability {
            Durability::Process => "--innodb-flush-log-at-trx-commit=2".to_owned(),
            Durability::Machine => "--innodb-flush-log-at-trx-commit=1".to_owned(),
        },
        match durability {
            Durability::Process => "--innodb-buffer-pool-size=128M".to_owned(),
            // As any server has it that is used: the default does not hold the indexes of a million rows, and it has no
            // page cache beside it as PostgreSQL has.
            Durability::Machine => "--innodb-buffer-pool-size=1G".to_owned(),
        },
        match durability {
            Durability::Process => "--innodb-log-file-size=96M".to_owned(),
            // With the default of 96 MiB commits wait for pages to be written while much is changed: the log is full.
            Durability::Machine => "--innodb-log-file-size=2G".to_owned(),
        },
        "--sync-binlog=0".to_owned(),
        // Nothing may depend on them.
        "--default-time-zone=+05:45".to_owned(),
        "--character-set-server=latin1".to_owned(),
        "--sql-mode=".to_owned(),
    ]);
    Ok(serve)
}
