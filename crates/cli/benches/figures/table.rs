//! The table that is printed.

/// Prints figures beside what they are to reach, and remembers whether one was missed.
#[derive(Default)]
pub(crate) struct Table {
    missed: bool,
}

impl Table {
    pub(crate) fn at_most(&mut self, what: &str, value: f64, limit: f64, unit: &str) {
        self.row(what, value, &format!("<= {limit} {unit}"), unit, value <= limit);
    }

    pub(crate) fn at_least(&mut self, what: &str, value: f64, limit: f64, unit: &str) {
        self.row(what, value, &format!(">= {limit} {unit}"), unit, value >= limit);
    }

    fn row(&mut self, what: &str, value: f64, goal: &str, unit: &str, ok: bool) {
        self.missed |= !ok;
        println!(
            "{what:<58} {value:>9.2} {unit:<9} {goal:<16} {}",
            if ok { "ok" } else { "MISSED" }
        );
    }

    /// A figure without a goal.
    pub(crate) fn is_missed(&self) -> bool {
        self.missed
    }
}

/// Prints a figure without a goal.
pub(crate) fn plain(what: &str, value: f64, unit: &str) {
    println!("{what:<58} {value:>9.2} {unit}");
}

pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
