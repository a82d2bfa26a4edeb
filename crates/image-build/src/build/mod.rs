//! The build engine: steps in order, each with an undo, told about by events.

mod artifact;
mod console;
mod context;
mod copying;
mod description;
mod destroy;
mod event;
mod let_go;
mod open_task;
mod own_task;
mod pace;
mod reservation;
mod resume;
mod run;
mod runner;
mod slots;
mod step;
mod steps;
mod vm;

pub use artifact::{Artifact, Replaced, StepTiming};
pub use console::Sight;
pub use description::{BUILD_TAG_PREFIX, IMAGE_TAG};
pub use event::{EVENT_VERSION, Event, EventKind, Unit};
pub use run::{Build, SCREEN_FILE, build, resume};
pub use runner::{AfterFailure, AskOnError};
pub use step::{CleanupFailure, StepName};

pub(crate) use description::is_id;
pub(crate) use destroy::{TASK_LIMIT, deletion_of, destroy};
pub(crate) use event::Emitter;
pub(crate) use let_go::let_go;
pub(crate) use open_task::OpenTask;
pub(crate) use own_task::in_own_task;
pub(crate) use pace::Pace;
pub(crate) use reservation::Reservation;
pub(crate) use runner::{Control, OnFailure, Runs, run as run_steps};
pub(crate) use step::Step;
pub(crate) use steps::{RETIRE, is_complete, needs_medium};
pub(crate) use vm::{LOST_ANSWER_LIMIT, ask, destroy_volume, is_base_in_use, is_lost_answer, may_pass, not_appeared};
