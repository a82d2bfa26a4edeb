//! What may be told of a panic: where it was, and its text where that is part of the program.
//!
//! A panic's text can hold whatever the code had in hand: `expect` prints the error, a slice out of bounds the string. So only a text
//! that was written into the program is shown; one that was put together at run time is not, as nobody knows what is in it.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::io::Write as _;
use std::panic::PanicHookInfo;
use std::sync::Once;

const HIDDEN: &str = "its text is not shown, since it may hold a secret";

thread_local! {
    /// Where this thread panicked last.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on panics of this process are told without texts that were put together at run time: their place, the text where it is
/// part of the program, and with `RUST_BACKTRACE=1` the calls that led there.
///
/// The command and the Python package do so when they start. It takes the place of the process's panic hook, so it is left to other
/// programs whether they want it; without it Rust's own hook prints the text of a panic on standard error. Errors and events of this
/// library never hold it.
pub fn hide_texts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(tell)));
}

fn tell(info: &PanicHookInfo<'_>) {
    let place = info
        .location()
        .map_or_else(|| "unknown".to_owned(), ToString::to_string);
    let thread = std::thread::current();
    let mut text = format!(
        "internal error: thread '{}' panicked at {place}: {}\n",
        thread.name().unwrap_or("without a name"),
        literal(info.payload()).unwrap_or(HIDDEN),
    );
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        // Names and places in the program, no values.
        text.push_str(&backtrace.to_string());
    }
    // Where it cannot be written there is nobody to read it.
    let _ = std::io::stderr().write_all(text.as_bytes());
    // A thread that is about to end has none left to remember it in.
    let _ = PLACE.try_with(|kept| kept.replace(Some(place)));
}

/// What may be told of a panic that this thread has caught.
pub(crate) fn told(panic: &(dyn Any + Send)) -> String {
    let text = literal(panic).unwrap_or(HIDDEN);
    match PLACE.try_with(RefCell::take).ok().flatten() {
        Some(place) => format!("a panic at {place}: {text}"),
        None => format!("a panic: {text}"),
    }
}

/// What may be told of a task that did not come to its end. The place of a panic is not: it was kept by the thread that the task ran on,
/// and what this one kept is another's.
pub fn told_of_task(ended: tokio::task::JoinError) -> String {
    match ended.try_into_panic() {
        Ok(panic) => format!("a panic: {}", literal(&*panic).unwrap_or(HIDDEN)),
        Err(_) => "a task was stopped".to_owned(),
    }
}

/// The text of a panic that was raised with one of the program's own: what is put together is a `String`.
fn literal(panic: &(dyn Any + Send)) -> Option<&'static str> {
    panic.downcast_ref::<&'static str>().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caught(work: impl FnOnce() + std::panic::UnwindSafe) -> String {
        told(&*std::panic::catch_unwind(work).unwrap_err())
    }

    #[test]
    fn only_what_is_written_in_the_program_is_told() {
        let secret = String::from("canary-\u{e4}-of-a-panic");
        let number = || secret.parse::<u8>().map_err(|_| secret.clone());
        assert!(caught(|| panic!("a literal")).ends_with(": a literal"));
        let hidden = [
            ("formatted", caught(|| panic!("{secret}"))),
            ("an error", caught(|| _ = number().expect("a number"))),
            ("a comparison", caught(|| assert_eq!(secret, "another"))),
            ("a slice", caught(|| drop(secret[..8].to_owned()))),
            ("any value", caught(|| std::panic::panic_any(secret.clone()))),
        ];
        for (what, told) in hidden {
            assert!(told.ends_with(HIDDEN) && !told.contains("canary"), "{what}: {told}");
        }
    }

    #[tokio::test]
    async fn a_task_is_not_told_with_the_place_of_another_panic() {
        PLACE.with(|kept| kept.replace(Some("elsewhere.rs:1:1".to_owned())));
        let work = tokio::task::spawn_blocking(|| panic!("a literal"));
        assert_eq!(told_of_task(work.await.unwrap_err()), "a panic: a literal");
        let _ = PLACE.with(RefCell::take);
    }

    #[tokio::test]
    async fn a_task_that_ended_early_is_told_the_same_way() {
        let secret = String::from("canary-of-a-task");
        let panicked = tokio::spawn(async move { panic!("{secret}") }).await.unwrap_err();
        assert!(panicked.to_string().contains("canary"), "tokio tells it: {panicked}");
        assert!(told_of_task(panicked).ends_with(HIDDEN));
        let stopped = tokio::spawn(std::future::pending::<()>());
        stopped.abort();
        assert_eq!(told_of_task(stopped.await.unwrap_err()), "a task was stopped");
    }
}
