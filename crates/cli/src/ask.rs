//! `--on-error ask`: the question on the terminal after a failure.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::sync::Arc;

use image_build::Error;
use image_build::build::{AfterFailure, AskOnError};
use tokio_util::sync::CancellationToken;

use crate::output::Console;

/// Whether there is someone to ask.
pub(crate) fn possible(console: &Console) -> bool {
    !console.json() && io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks on the terminal. Cancelling, or an end of input, means to clean up.
pub(crate) fn on_terminal(console: Console, cancel: CancellationToken) -> AskOnError {
    Arc::new(move |step: &str, error: &Error| {
        let intro = format!("{step} failed: {}\n", error.chain());
        let (console, cancel) = (console.clone(), cancel.clone());
        Box::pin(async move {
            console.error_line(intro.trim_end());
            let choice = tokio::select! {
                () = cancel.cancelled() => AfterFailure::CleanUp,
                choice = question(&console) => choice,
            };
            console.answered();
            choice
        })
    })
}

async fn question(console: &Console) -> AfterFailure {
    loop {
        console.ask("clean up what the build made, or keep it for a look? [c/k] ");
        // The read cannot be taken back; the runtime does not wait for it at the end.
        let line = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            io::stdin()
                .lock()
                .read_line(&mut line)
                .map(|read| (read > 0).then_some(line))
        });
        let Ok(Ok(Some(line))) = line.await else {
            return AfterFailure::CleanUp;
        };
        if let Some(choice) = choice(&line) {
            return choice;
        }
    }
}

fn choice(answer: &str) -> Option<AfterFailure> {
    match answer.trim().to_lowercase().as_str() {
        "c" | "clean" | "clean up" | "cleanup" => Some(AfterFailure::CleanUp),
        "k" | "keep" => Some(AfterFailure::Keep),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        for (answer, wanted) in [
            ("c\n", Some(AfterFailure::CleanUp)),
            (" Cleanup \n", Some(AfterFailure::CleanUp)),
            ("K\r\n", Some(AfterFailure::Keep)),
            ("keep", Some(AfterFailure::Keep)),
            ("", None),
            ("y", None),
        ] {
            assert_eq!(choice(answer), wanted, "{answer:?}");
        }
    }
}
