//! The view in a real terminal: keys, what it shows of a log that changes or goes away, and the terminal afterwards.

use crate::tmux::Tmux;
use crate::{NUTOP, make, nutop, open_by, store_with_rows, support};
use nulog::Store;
use support::{Durability, Kind, Server};

struct Lab {
    directory: tempfile::TempDir,
    store: Store,
}

async fn lab() -> Lab {
    let directory = tempfile::tempdir().unwrap();
    let store = store_with_rows(&url(&directory)).await;
    Lab { directory, store }
}

fn url(directory: &tempfile::TempDir) -> String {
    format!("sqlite:{}/nulog.db", directory.path().display())
}

impl Lab {
    fn command(&self) -> String {
        format!(
            "{NUTOP} --config /dev/null --interval 200ms --database {}",
            url(&self.directory)
        )
    }
}

/// A way to end the view.
type End = Box<dyn Fn(&Tmux)>;

/// The lines of the table that name one of these users.
fn lines_of<'a>(screen: &'a str, users: &[&str]) -> Vec<&'a str> {
    let names = screen.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| users.contains(name)).collect()
}

#[tokio::test]
async fn keys_sort_filter_group_and_show_details_of_a_log_that_changes() {
    let mut lab = lab().await;
    let Some(tmux) = Tmux::start("keys", 140, 24, &lab.command()) else {
        return;
    };
    let users = ["alice", "bob", "carol", "dave"];
    let screen = tmux.wait_for("3 connections, 1 established");
    assert!(
        screen.contains("[2001:db8::7]:40312") && !screen.contains("carol"),
        "{screen}"
    );
    tmux.keys(&["1"]);
    tmux.wait("sorted by user", |screen| {
        lines_of(screen, &users) == ["alice", "alice", "bob"]
    });
    tmux.keys(&["r"]);
    tmux.wait("reversed", |screen| {
        lines_of(screen, &users) == ["bob", "alice", "alice"]
    });

    let dave = open_by(9, "dave", "/usr/bin/x\u{1b}[2Jy", "10.0.0.99");
    lab.store.apply(&[dave]).await.unwrap();
    let screen = tmux.wait_for("4 connections");
    assert!(screen.contains("/usr/bin/x\\u{1b}[2Jy"), "{screen}");

    tmux.keys(&["/", "u", "s", "e", "r", ":", "D", "a", "v"]);
    tmux.wait("filtered", |screen| {
        screen.contains("filter: user:Dav_") && lines_of(screen, &users) == ["dave"]
    });
    tmux.keys(&["Enter"]);
    tmux.wait_for("filter: user:Dav  (1 fit)");
    tmux.keys(&["Enter"]);
    let screen = tmux.wait_for("reply (NAT)");
    assert!(
        screen.contains("192.168.0.9:8443") && screen.contains("web-out"),
        "{screen}"
    );
    lab.store.apply(&[make::close(9)]).await.unwrap();
    tmux.wait_for("not live any more");
    tmux.keys(&["Escape"]);
    tmux.wait_for("No connection fits the filter.");
    tmux.keys(&["Escape"]);
    tmux.wait("unfiltered", |screen| lines_of(screen, &users).len() == 3);

    tmux.keys(&["g"]);
    tmux.wait("grouped", |screen| {
        screen.contains("2 (1 est.)") && lines_of(screen, &users) == ["alice", "bob"]
    });
    tmux.keys(&["Down", "Enter"]);
    tmux.wait("opened", |screen| {
        screen.contains("filter: user:bob") && lines_of(screen, &users) == ["bob"]
    });
    tmux.keys(&["?"]);
    tmux.wait_for("Ctrl-C  quit");
    tmux.keys(&["q", "Escape"]);

    tmux.keys(&["p"]);
    tmux.wait_for("PAUSED");
    lab.store
        .apply(&[open_by(10, "dave", "x", "10.0.0.99")])
        .await
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert!(!tmux.screen().contains("dave"));
    tmux.keys(&["p"]);
    tmux.wait("going on", |screen| lines_of(screen, &users).len() == 4);

    // It is drawn for whatever size there is.
    tmux.resize(50, 8);
    tmux.wait("narrow", |screen| {
        screen.contains("USER") && !screen.contains("DESTINATION") && screen.contains("q quit")
    });
    tmux.resize(160, 30);
    tmux.wait_for("DESTINATION");
    tmux.keys(&["q"]);
}

#[tokio::test]
async fn the_terminal_is_as_it_was_however_the_view_ends() {
    let lab = lab().await;
    // The shell does not end with the interrupt that the keyboard would send it.
    let script = format!(
        "trap : INT; stty -a >{dir}/before; echo what was here; sh -c 'echo $$ >{dir}/pid; exec {command}'; \
         echo ended $?; stty -a >{dir}/after; echo done; cat",
        dir = lab.directory.path().display(),
        command = lab.command()
    );
    let end_by_signal = |signal| {
        let directory = lab.directory.path().to_owned();
        move |_: &Tmux| {
            let pid = std::fs::read_to_string(directory.join("pid")).unwrap();
            let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
            rustix::process::kill_process(pid, signal).unwrap();
        }
    };
    let ends: [(&str, End); 4] = [
        ("q", Box::new(|tmux: &Tmux| tmux.keys(&["q"]))),
        ("Ctrl-C", Box::new(|tmux: &Tmux| tmux.keys(&["C-c"]))),
        ("TERM", Box::new(end_by_signal(rustix::process::Signal::TERM))),
        ("HUP", Box::new(end_by_signal(rustix::process::Signal::HUP))),
    ];
    for (how, end) in ends {
        let Some(tmux) = Tmux::start("restored", 120, 20, &script) else {
            return;
        };
        tmux.wait_for("3 connections");
        assert_eq!(tmux.ask("#{alternate_on} #{cursor_flag}"), "1 0", "{how}");
        end(&tmux);
        let screen = tmux.wait_for("done");
        assert!(
            screen.contains("what was here") && screen.contains("ended 0"),
            "{how}: {screen}"
        );
        assert!(!screen.contains("nutop"), "{how}: {screen}");
        assert_eq!(tmux.ask("#{alternate_on} #{cursor_flag}"), "0 1", "{how}");
        let read = |name: &str| std::fs::read_to_string(lab.directory.path().join(name)).unwrap();
        assert_eq!(read("before"), read("after"), "{how}");
    }
}

#[tokio::test]
async fn a_log_that_goes_away_is_said_and_one_that_comes_back_is_shown() {
    let mut lab = lab().await;
    let Some(tmux) = Tmux::start("away", 140, 20, &lab.command()) else {
        return;
    };
    tmux.wait_for("3 connections");
    let [file, away] = ["nulog.db", "away.db"].map(|name| lab.directory.path().join(name));
    std::fs::rename(&file, &away).unwrap();
    let screen = tmux.wait_for("AWAY since");
    assert!(
        screen.contains("there is no log") && screen.contains("bob") && screen.contains("3 connections"),
        "{screen}"
    );
    // Keys are obeyed meanwhile.
    tmux.keys(&["g"]);
    tmux.wait_for("CONNECTIONS");
    std::fs::rename(&away, &file).unwrap();
    tmux.wait("back", |screen| !screen.contains("AWAY"));
    lab.store
        .apply(&[open_by(9, "dave", "x", "10.0.0.99")])
        .await
        .unwrap();
    tmux.wait_for("dave");
    tmux.keys(&["q"]);
}

async fn a_server_that_crashes_is_said_and_read_again_when_it_is_back(kind: Kind, test: &str) {
    let server = match tokio::task::spawn_blocking(move || Server::start(kind, Durability::Process))
        .await
        .unwrap()
    {
        Ok(server) => server,
        Err(reason) => {
            support::skip(test, kind, &reason);
            return;
        }
    };
    let database = server.database().await;
    nulog::migrate(&nulog::Location::parse(&server.url(&database)).unwrap())
        .await
        .unwrap();
    let store = store_with_rows(&server.url(&database)).await;
    let reader = server.account(&database, "reader").await;
    let command = format!("{NUTOP} --config /dev/null --interval 200ms --database '{reader}'");
    let Some(tmux) = Tmux::start(test, 140, 20, &command) else {
        return;
    };
    tmux.wait_for("3 connections");
    tokio::task::spawn_blocking(move || {
        server.kill();
        let screen = tmux.wait_for("AWAY since");
        assert!(
            screen.contains("bob") && screen.contains("3 connections"),
            "{screen}"
        );
        server.begin();
        tmux.wait("back", |screen| {
            !screen.contains("AWAY") && screen.contains("bob")
        });
        tmux.keys(&["q"]);
        drop(server);
    })
    .await
    .unwrap();
    drop(store);
}

#[tokio::test]
async fn a_postgresql_server_that_crashes_is_said_and_read_again_when_it_is_back() {
    let test = "a_postgresql_server_that_crashes";
    a_server_that_crashes_is_said_and_read_again_when_it_is_back(Kind::Postgres, test).await;
}

#[tokio::test]
async fn a_mariadb_server_that_crashes_is_said_and_read_again_when_it_is_back() {
    let test = "a_mariadb_server_that_crashes";
    a_server_that_crashes_is_said_and_read_again_when_it_is_back(Kind::MariaDb, test).await;
}

#[tokio::test]
async fn colours_are_left_out_where_they_are_not_wanted() {
    let lab = lab().await;
    let has_colour = |screen: &str| {
        let codes = screen.split('\u{1b}').filter_map(|part| part.strip_prefix('['));
        let codes = codes
            .filter_map(|part| part.split_once('m'))
            .flat_map(|(codes, _)| codes.split(';'));
        codes
            .filter_map(|code| code.parse::<u8>().ok())
            .any(|code| matches!(code, 30..=38 | 90..=97))
    };
    for (environment, coloured) in [("", true), ("NO_COLOR=1", false)] {
        let command = format!("{environment} exec {}", lab.command());
        let command = command
            .trim_start()
            .replace("NO_COLOR=1 exec", "NO_COLOR=1; export NO_COLOR; exec");
        let Some(tmux) = Tmux::start("colours", 120, 20, &command) else {
            return;
        };
        tmux.wait_for("3 connections");
        tmux.wait_for("q quit");
        assert_eq!(has_colour(&tmux.coloured()), coloured, "{:?}", tmux.coloured());
        tmux.keys(&["q"]);
    }
}

#[tokio::test]
async fn a_log_that_cannot_be_read_from_the_start_leaves_the_terminal_alone() {
    let missing = tempfile::tempdir().unwrap();
    let script = format!(
        "{NUTOP} --config /dev/null --database {}; echo ended $?; cat",
        url(&missing)
    );
    let Some(tmux) = Tmux::start("missing", 120, 20, &script) else {
        return;
    };
    let screen = tmux.wait_for("ended ");
    assert!(
        screen.contains("nutop: there is no log") && !screen.contains("ended 0"),
        "{screen}"
    );
    // And without a terminal it prints once.
    let lab = lab().await;
    let output = nutop()
        .args(["--config", "/dev/null", "--database", &url(&lab.directory)])
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && printed.starts_with("USER ") && printed.lines().count() == 4,
        "{printed}"
    );
    assert!(!printed.contains('\u{1b}'), "{printed:?}");
}
