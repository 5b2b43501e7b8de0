//! Takes the terminal, and gives it back however the program ends.
//!
//! No state of the view is here. Only SIGKILL leaves a terminal that needs `reset`.

use crate::model::Key;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use std::io::{self, BufWriter, Stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// Keys that wait to be read; a pasted text beyond that waits in the terminal.
const KEYS: usize = 256;
/// How often the thread that reads keys looks whether anybody wants them.
const LOOK: Duration = Duration::from_millis(200);

/// The terminal, ours until this is dropped.
pub(crate) struct Screen {
    pub(crate) terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
}

impl Screen {
    pub(crate) fn take() -> io::Result<Self> {
        restore_on_panic();
        enable_raw_mode()?;
        TAKEN.store(true, Ordering::Release);
        let taken = execute!(io::stdout(), EnterAlternateScreen)
            .and_then(|()| Terminal::new(CrosstermBackend::new(BufWriter::new(io::stdout()))));
        match taken {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// A panic says what it is about on a terminal that shows it.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            before(info);
        }));
    });
}

/// Whether the terminal is ours: given back twice, it would put the cursor back over what was said meanwhile.
static TAKEN: AtomicBool = AtomicBool::new(false);

fn restore() {
    if !TAKEN.swap(false, Ordering::AcqRel) {
        return;
    }
    // The terminal may be gone; nobody is left to tell then.
    let _ = disable_raw_mode();
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
}

#[cfg(test)]
#[path = "../tests/viewer/tmux.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod tmux;

#[cfg(test)]
mod tests {
    use super::*;
    use tmux::Tmux;

    const PANIC: &str = "NUTOP_TEST_PANIC";

    /// Not a test of its own: what the next one runs in a terminal.
    #[test]
    fn panicking_child() {
        if std::env::var_os(PANIC).is_some() {
            let _screen = Screen::take().unwrap();
            std::thread::sleep(LOOK);
            panic!("on purpose");
        }
    }

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_speaks() {
        let child = std::env::current_exe().unwrap();
        let script = format!(
            "{PANIC}=1 {} --exact terminal::tests::panicking_child --nocapture; stty -a | grep -o ' -*icanon'; cat",
            child.display()
        );
        let Some(tmux) = Tmux::start("panic", 120, 40, &script) else {
            return;
        };
        let screen = tmux.wait_for("icanon");
        assert!(
            screen.contains("on purpose") && !screen.contains("-icanon"),
            "{screen}"
        );
        assert_eq!(tmux.ask("#{alternate_on} #{cursor_flag}"), "0 1");
    }
}

/// What comes from the terminal.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Input {
    Key(Key),
    Resized,
}

/// Reads keys on a thread of its own until nobody wants them or the terminal is gone.
pub(crate) fn inputs() -> mpsc::Receiver<Input> {
    let (sender, receiver) = mpsc::channel(KEYS);
    std::thread::spawn(move || {
        while !sender.is_closed() {
            let input = match event::poll(LOOK) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(error) => Err(error),
            };
            let input = match input {
                Ok(Event::Key(pressed)) if pressed.kind != KeyEventKind::Release => {
                    key(pressed).map(Input::Key)
                }
                Ok(Event::Resize(..)) => Some(Input::Resized),
                Ok(_) => None,
                Err(_) => return,
            };
            if input.is_some_and(|input| sender.blocking_send(input).is_err()) {
                return;
            }
        }
    });
    receiver
}

fn key(event: KeyEvent) -> Option<Key> {
    let control = event.modifiers.contains(KeyModifiers::CONTROL);
    Some(match event.code {
        KeyCode::Char('c') if control => Key::Interrupt,
        KeyCode::Char('u') if control => Key::Erase,
        KeyCode::Char('h') if control => Key::Backspace,
        KeyCode::Char(_) if control || event.modifiers.contains(KeyModifiers::ALT) => return None,
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        _ => return None,
    })
}
