//! Reads and writes of a drive that take their time.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::DriveCounters;

/// Reads and writes in progress: counters grow evenly over its time.
#[derive(Clone, Debug)]
pub(super) struct Activity {
    pub(super) began: Instant,
    pub(super) takes: Duration,
    pub(super) read: Option<(String, u64)>,
    pub(super) written: Option<(String, u64)>,
}

impl Activity {
    /// The part of a whole that is done by now.
    fn part(&self, whole: u64) -> u64 {
        if self.takes.is_zero() {
            return whole;
        }
        let share = (self.began.elapsed().as_secs_f64() / self.takes.as_secs_f64()).min(1.0);
        // Byte counts of this size are exact in a double.
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a byte count"
        )]
        let part = (whole as f64 * share) as u64;
        part.min(whole)
    }

    pub(super) fn add_to(&self, counters: &mut BTreeMap<String, DriveCounters>, all: bool) {
        let part = |whole| if all { whole } else { self.part(whole) };
        if let Some((slot, bytes)) = &self.read {
            counters.entry(slot.clone()).or_default().read += part(*bytes);
        }
        if let Some((slot, bytes)) = &self.written {
            counters.entry(slot.clone()).or_default().written += part(*bytes);
        }
    }
}
