//! The runner with steps that only write down what is asked of them.

use async_trait::async_trait;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::build::event::Event;
use crate::build::step::StepName;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Succeed,
    Fail,
    Panic,
    CancelThenSucceed,
    /// Another process takes the build over.
    Lose,
}

#[derive(Debug)]
struct Scripted {
    name: &'static str,
    run: Act,
    undo: Act,
    commits: bool,
}

struct Diary {
    emitter: Emitter,
    cancel: CancellationToken,
    watched: CancellationToken,
    lines: Vec<String>,
    timed: Vec<String>,
    taken: bool,
    /// Whether the look at a failed step, and the end of the lease, panic.
    fragile: bool,
}

impl Diary {
    fn new(cancel: &CancellationToken) -> (Self, UnboundedReceiver<Event>) {
        let (to, events) = unbounded_channel();
        let diary = Self {
            emitter: Emitter::new("7f3a".to_owned(), Some(to)),
            cancel: cancel.clone(),
            watched: cancel.clone(),
            lines: Vec::new(),
            timed: Vec::new(),
            taken: false,
            fragile: false,
        };
        (diary, events)
    }
}

#[async_trait]
impl Runs for Diary {
    async fn begin(&mut self, step: &str) -> Result<(), Error> {
        self.lines.push(format!("note {step}"));
        Ok(())
    }

    fn is_taken_over(&self) -> Option<Error> {
        self.taken.then(|| Error::TakenOver {
            build: "7f3a".to_owned(),
            found: "another".to_owned(),
        })
    }

    async fn let_go(&mut self) {
        assert!(!self.fragile, "boom in let go");
        self.lines.push("let go".to_owned());
    }

    fn see<'a>(&'a mut self, _: &'a Error) -> BoxFuture<'a, Sight> {
        assert!(!self.fragile, "boom in see");
        Box::pin(async { Sight::default() })
    }

    fn emitter(&self) -> &Emitter {
        &self.emitter
    }

    fn watch(&mut self, token: CancellationToken) {
        self.watched = token;
    }

    fn timed(&mut self, step: &str, _: f64) {
        self.timed.push(step.to_owned());
    }

    fn leftovers(&self) -> Vec<String> {
        vec!["vm 9000".to_owned()]
    }
}

#[async_trait]
impl Step<Diary> for Scripted {
    fn name(&self) -> StepName {
        self.name.into()
    }

    async fn run(&mut self, diary: &mut Diary) -> Result<String, Error> {
        diary.lines.push(format!("run {}", self.name));
        match self.run {
            Act::Succeed => Ok(format!("{} done", self.name)),
            Act::Fail => Err(Error::Unexpected {
                what: self.name.to_owned(),
                reason: "first cause".to_owned(),
            }),
            Act::Panic => panic!("boom in a run"),
            Act::CancelThenSucceed => {
                diary.cancel.cancel();
                Ok(String::new())
            }
            Act::Lose => {
                diary.taken = true;
                Ok(String::new())
            }
        }
    }

    async fn undo(&mut self, diary: &mut Diary) -> Result<Option<String>, Error> {
        assert!(
            !diary.watched.is_cancelled(),
            "the clean-up is not cancelled with the build"
        );
        diary.lines.push(format!("undo {}", self.name));
        match self.undo {
            Act::Fail => Err(Error::Unexpected {
                what: self.name.to_owned(),
                reason: "stuck".to_owned(),
            }),
            Act::Panic => panic!("boom in an undo"),
            Act::Lose => {
                diary.taken = true;
                Ok(None)
            }
            Act::Succeed | Act::CancelThenSucceed => Ok(Some(format!("{} removed", self.name))),
        }
    }

    fn commits(&self) -> bool {
        self.commits
    }
}

fn step(name: &'static str, run: Act) -> Scripted {
    Scripted {
        name,
        run,
        undo: Act::Succeed,
        commits: false,
    }
}

async fn play(
    steps: Vec<Scripted>,
    on_failure: OnFailure,
) -> (Result<(), Error>, Vec<String>, UnboundedReceiver<Event>) {
    let cancel = CancellationToken::new();
    let (diary, events) = Diary::new(&cancel);
    play_with(diary, events, steps, on_failure).await
}

async fn play_with(
    mut diary: Diary,
    events: UnboundedReceiver<Event>,
    steps: Vec<Scripted>,
    on_failure: OnFailure,
) -> (Result<(), Error>, Vec<String>, UnboundedReceiver<Event>) {
    let cancel = diary.cancel.clone();
    let control = Control {
        cancel,
        on_failure,
        undo_limit: Duration::from_secs(60),
    };
    let mut steps: Vec<Box<dyn Step<Diary>>> = steps.into_iter().map(|s| Box::new(s) as Box<dyn Step<Diary>>).collect();
    let ended = run(&mut steps, &mut diary, &control, 0).await;
    assert!(ended.is_err() || diary.timed.len() == steps.len());
    (ended, diary.lines, events)
}

const CLEAN_UP: OnFailure = OnFailure::Always(AfterFailure::CleanUp);

#[tokio::test]
async fn steps_run_in_order_and_nothing_is_undone() {
    let (ended, lines, mut events) = play(vec![step("a", Act::Succeed), step("b", Act::Succeed)], CLEAN_UP).await;
    ended.unwrap();
    assert_eq!(lines, ["note a", "run a", "note b", "run b"]);
    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        match event.kind {
            EventKind::StepStarted { step } => seen.push(format!("start {step}")),
            EventKind::StepFinished { step, ok, summary, .. } => seen.push(format!("end {step} {ok} {summary}")),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, ["start a", "end a true a done", "start b", "end b true b done"]);
}

#[tokio::test]
async fn a_failure_undoes_in_reverse_from_the_failed_step_on() {
    let steps = vec![
        step("a", Act::Succeed),
        step("b", Act::Succeed),
        step("c", Act::Fail),
        step("d", Act::Succeed),
    ];
    let (ended, lines, _) = play(steps, CLEAN_UP).await;
    let error = ended.unwrap_err();
    assert_eq!(error.chain(), "c failed: c: first cause");
    assert_eq!(error.step(), Some("c"));
    assert_eq!(
        lines,
        [
            "note a", "run a", "note b", "run b", "note c", "run c", "undo c", "undo b", "undo a"
        ]
    );
}

#[tokio::test]
async fn cleanup_failures_are_listed_and_hide_neither_the_cause_nor_the_rest() {
    let steps = vec![
        step("a", Act::Succeed),
        Scripted {
            undo: Act::Fail,
            ..step("b", Act::Succeed)
        },
        Scripted {
            undo: Act::Panic,
            ..step("c", Act::Panic)
        },
    ];
    let (ended, lines, _) = play(steps, CLEAN_UP).await;
    let error = ended.unwrap_err();
    assert_eq!(
        error.chain(),
        "c failed (not cleaned up: c: internal error: a panic: boom in an undo; b: b: stuck): internal error: a panic: boom in a run"
    );
    assert_eq!(
        lines,
        [
            "note a", "run a", "note b", "run b", "note c", "run c", "undo c", "undo b", "undo a", "let go"
        ],
        "what is left is no one's: its lease ends"
    );
}

#[tokio::test]
async fn a_panic_beside_the_steps_undoes_all_the_same() {
    let panics: AskOnError = Arc::new(|_, _| panic!("boom in ask"));
    let panics_later: AskOnError = Arc::new(|_, _| async { panic!("boom in ask") }.boxed());
    for (ask, told) in [
        (CLEAN_UP, "boom in see"),
        (OnFailure::Ask(panics), "boom in ask"),
        (OnFailure::Ask(panics_later), "boom in ask"),
    ] {
        let (mut diary, events) = Diary::new(&CancellationToken::new());
        diary.fragile = true;
        // The second undo fails, so that the lease is to be ended, which panics too.
        let steps = vec![
            Scripted {
                undo: Act::Fail,
                ..step("a", Act::Succeed)
            },
            step("b", Act::Fail),
        ];
        let (ended, lines, mut events) = play_with(diary, events, steps, ask).await;
        let error = ended.unwrap_err();
        assert_eq!(error.chain(), "b failed (not cleaned up: a: a: stuck): b: first cause");
        assert_eq!(lines, ["note a", "run a", "note b", "run b", "undo b", "undo a"]);
        let mut warnings = Vec::new();
        while let Ok(event) = events.try_recv() {
            if let EventKind::Warning { message, .. } = event.kind {
                warnings.push(message);
            }
        }
        for part in ["boom in see", told, "boom in let go"] {
            assert!(
                warnings.iter().any(|warning| warning.contains(part)),
                "{part}: {warnings:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_cancel_between_steps_stops_and_undoes() {
    let steps = vec![step("a", Act::CancelThenSucceed), step("b", Act::Succeed)];
    let (ended, lines, _) = play(steps, CLEAN_UP).await;
    let error = ended.unwrap_err();
    assert!(error.is_cancelled(), "{error}");
    assert_eq!(lines, ["note a", "run a", "undo b", "undo a"]);
}

#[tokio::test]
async fn keep_leaves_everything_and_names_it() {
    let steps = vec![step("a", Act::Succeed), step("b", Act::Fail)];
    let (ended, lines, _) = play(steps, OnFailure::Always(AfterFailure::Keep)).await;
    assert_eq!(ended.unwrap_err().to_string(), "b failed (kept: vm 9000)");
    assert_eq!(lines, ["note a", "run a", "note b", "run b", "let go"]);
}

#[tokio::test]
async fn a_build_in_other_hands_is_left_alone() {
    let cancel = CancellationToken::new();
    let (mut diary, _events) = Diary::new(&cancel);
    diary.taken = true;
    let control = Control {
        cancel,
        on_failure: CLEAN_UP,
        undo_limit: Duration::from_secs(60),
    };
    let mut steps: Vec<Box<dyn Step<Diary>>> =
        vec![Box::new(step("a", Act::Succeed)), Box::new(step("b", Act::Succeed))];
    let error = run(&mut steps, &mut diary, &control, 1).await.unwrap_err();
    assert_eq!(error.chain(), "b failed: build 7f3a is in other hands: another");
    assert_eq!(diary.lines, ["note b", "run b"], "neither undone nor let go");
}

#[tokio::test]
async fn a_build_that_is_taken_over_while_it_is_undone_is_left_alone_from_then_on() {
    let lost = Scripted {
        undo: Act::Lose,
        ..step("b", Act::Succeed)
    };
    let steps = vec![step("a", Act::Succeed), lost, step("c", Act::Fail)];
    let (ended, lines, _) = play(steps, CLEAN_UP).await;
    assert_eq!(ended.unwrap_err().to_string(), "c failed");
    assert_eq!(
        lines[6..],
        ["undo c", "undo b"],
        "what is left is the other's, and so is its lease"
    );
}

#[tokio::test]
async fn ask_is_asked_with_the_step_and_its_error() {
    for (answer, undone) in [(AfterFailure::Keep, false), (AfterFailure::CleanUp, true)] {
        let ask: AskOnError = Arc::new(move |step, error| {
            assert_eq!((step, error.to_string().as_str()), ("b", "b: first cause"));
            async move { answer }.boxed()
        });
        let (ended, lines, _) = play(vec![step("a", Act::Succeed), step("b", Act::Fail)], OnFailure::Ask(ask)).await;
        ended.unwrap_err();
        assert_eq!(lines.contains(&"undo a".to_owned()), undone);
    }
}

#[tokio::test]
async fn nothing_is_undone_once_the_image_is_complete() {
    let steps = vec![
        Scripted {
            commits: true,
            ..step("template", Act::CancelThenSucceed)
        },
        step("manifest", Act::Fail),
    ];
    let (ended, lines, _) = play(steps, CLEAN_UP).await;
    assert_eq!(ended.unwrap_err().to_string(), "manifest failed (kept: vm 9000)");
    assert_eq!(
        lines,
        [
            "note template",
            "run template",
            "note manifest",
            "run manifest",
            "let go"
        ],
        "after the commit a cancel comes too late"
    );
}
