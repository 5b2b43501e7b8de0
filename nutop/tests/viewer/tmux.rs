//! A real terminal: a window of tmux of its own, which ends with the test.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How long something on the screen may take to come, in steps.
const STEPS: u32 = 300;
const STEP: Duration = Duration::from_millis(100);

pub(crate) struct Tmux {
    socket: PathBuf,
    _directory: TempDir,
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = self.run(&["kill-server"]);
    }
}

impl Tmux {
    /// Runs a shell's command in a window of this size; `None`, loudly, where there is no tmux.
    pub(crate) fn start(test: &str, width: u16, height: u16, script: &str) -> Option<Self> {
        if Command::new("tmux")
            .arg("-V")
            .stdout(Stdio::null())
            .status()
            .is_err()
        {
            let reason = "SKIPPED: no tmux here (Debian package tmux)";
            let _ = writeln!(std::io::stderr(), "{reason}: {test}");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let tmux = Self {
            socket: directory.path().join("tmux"),
            _directory: directory,
        };
        let (width, height) = (width.to_string(), height.to_string());
        let new = [
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &width,
            "-y",
            &height,
        ];
        let output = tmux.run(&[&new[..], &["--", "sh", "-c", script]].concat());
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Some(tmux)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new("tmux")
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .arg("-u")
            .arg("-S")
            .arg(&self.socket)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Presses keys by tmux's names for them.
    pub(crate) fn keys(&self, keys: &[&str]) {
        let output = self.run(&[&["send-keys", "--"], keys].concat());
        assert!(output.status.success());
    }

    pub(crate) fn resize(&self, width: u16, height: u16) {
        let (width, height) = (width.to_string(), height.to_string());
        let output = self.run(&["resize-window", "-x", &width, "-y", &height]);
        assert!(output.status.success());
    }

    /// What is on the screen.
    pub(crate) fn screen(&self) -> String {
        text(&self.run(&["capture-pane", "-p"]))
    }

    /// The same with the escape sequences of its colours.
    pub(crate) fn coloured(&self) -> String {
        text(&self.run(&["capture-pane", "-p", "-e"]))
    }

    /// What tmux knows of the window, such as `#{alternate_on}`.
    pub(crate) fn ask(&self, format: &str) -> String {
        text(&self.run(&["display-message", "-p", format]))
            .trim()
            .to_owned()
    }

    /// Waits until the screen is as it should be.
    pub(crate) fn wait(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        for _ in 0..STEPS {
            let screen = self.screen();
            if fits(&screen) {
                return screen;
            }
            std::thread::sleep(STEP);
        }
        panic!("never: {what}; the screen:\n{}", self.screen());
    }

    pub(crate) fn wait_for(&self, text: &str) -> String {
        self.wait(text, |screen| screen.contains(text))
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
