//! Every fault at every call of a build: whatever breaks, a build ends in one good template or in what was there before, says why,
//! and gives no secret away.
//!
//! `cargo test` runs a share of it, always the same. `make faults` runs it whole (`K3SIMAGE_FAULTS=all`), with random faults on top,
//! two or three in one build, which `K3SIMAGE_FAULTS=random` runs alone, as `ssh`, `ticket`, `agent`, `replace` and
//! `exchange` do the single ones of a kind of build; `K3SIMAGE_FAULTS_SEED` repeats those of an earlier time. `K3SIMAGE_FAULTS='FAULT@PLACE'`
//! is one run alone, as a violation names it, and shows all that the builder said.
#![allow(clippy::unwrap_used, reason = "a helper ends the test that it helps")]
#![allow(
    clippy::print_stdout,
    reason = "the runs take minutes, and their figures are the result"
)]

#[path = "../common/mod.rs"]
mod common;
mod kind;
mod lane;
mod trouble;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use common::Folder;
use kind::{KINDS, Kind};
use lane::{End, Lane, Pace};
use trouble::{Case, Point, Stage, TROUBLES};

/// How many of all runs, and how many random ones, `cargo test` does.
const SHARE: usize = 40;
const RANDOM_SHARE: usize = 8;
/// How many of the faults of a kind that is hit besides the plain one: there are more calls of the agent than time for all.
const AGENT_RUNS: usize = 300;
/// What once went wrong is in the share too.
const ONCE_WRONG: [&str; 2] = [
    "guest-resets@POST /nodes/pve/qemu/9000/status/shutdown#1",
    "task-warns@DELETE /nodes/pve/storage/local/content/local:iso/*#1",
];
/// How many random ones there are in the whole.
const RANDOM: usize = 1000;
/// Of so many cases of a kind, one may be missed.
const ONE_MISSED_OF: usize = 10;
/// How often a run is tried whose fault did not happen: how many calls a build makes differs with the machine's load.
const TRIES: usize = 3;

/// What is to be run.
enum Scope {
    Share,
    Whole,
    /// The random runs of the whole alone.
    Random,
    /// All single faults of one kind of build alone.
    Kind(Kind),
    One(Case),
}

impl Scope {
    fn from_environment() -> Self {
        match std::env::var("K3SIMAGE_FAULTS").as_deref() {
            Err(_) => Self::Share,
            Ok("all") => Self::Whole,
            Ok("random") => Self::Random,
            Ok(name) => match Kind::named(name) {
                Some(kind) => Self::Kind(kind),
                None => Self::One(name.parse().unwrap_or_else(|error| panic!("K3SIMAGE_FAULTS: {error}"))),
            },
        }
    }

    fn pace(&self) -> Pace {
        match self {
            Self::Share => Pace::patient(),
            _ => Pace::quick(),
        }
    }

    /// Of the cases of one kind, those that are run, far between; a share has none that is slow.
    fn of(&self, kind: Kind, mut cases: Vec<Case>) -> Vec<Case> {
        let limit = match (self, kind) {
            (Self::Whole, Kind::Agent) => AGENT_RUNS,
            (Self::Whole, _) => cases.len(),
            (Self::Kind(wanted), _) => cases.len() * usize::from(*wanted == kind),
            (Self::Random | Self::One(_), _) => 0,
            (Self::Share, Kind::Ssh) => SHARE,
            (Self::Share, Kind::Ticket) => SHARE / TROUBLES.len(),
            (Self::Share, Kind::Agent | Kind::Replace | Kind::Exchange) => SHARE / 4,
        };
        if matches!(self, Self::Share) {
            cases.retain(|case| !case.is_slow());
        }
        let count = cases.len();
        let wanted = |index: &usize| limit >= count || index * limit / count != (index + 1) * limit / count;
        (0..count).filter(wanted).map(|index| cases[index].clone()).collect()
    }
}

/// What the runs showed.
#[derive(Default)]
struct Report {
    runs: Vec<(Case, End)>,
    /// Cases whose fault did not happen.
    missed: Vec<Case>,
    violations: Vec<String>,
}

/// Runs the cases over some clusters; what only waits on its own ones, beside what works.
fn run_all(folder: &Folder, cases: &[Case], pace: Pace, tells: bool) -> Report {
    let report = Mutex::new(Report::default());
    let run = |of: &[&Case], next: &AtomicUsize| {
        let mut lane = Lane::new(Kind::Ssh, pace);
        while let Some(case) = of.get(next.fetch_add(1, Ordering::Relaxed)) {
            if lane.kind != case.kind {
                lane = Lane::new(case.kind, pace);
            }
            run_one(&mut lane, folder, case, &report, tells, cases.len());
        }
    };
    let (waits, works): (Vec<&Case>, Vec<&Case>) = cases.iter().partition(|case| case.is_slow());
    let (next_that_waits, next_that_works) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for (of, next) in [(&waits, &next_that_waits), (&works, &next_that_works)] {
            for _ in 0..pace.lanes.min(of.len()) {
                scope.spawn(|| run(of, next));
            }
        }
    });
    report.into_inner().unwrap()
}

fn run_one(lane: &mut Lane, folder: &Folder, case: &Case, report: &Mutex<Report>, tells: bool, total: usize) {
    for _ in 0..TRIES {
        let outcome = lane.run(folder, case);
        if !lane.tidy() {
            *lane = Lane::new(case.kind, lane.pace);
        }
        let mut report = report.lock().unwrap();
        if tells {
            println!("{}", outcome.said);
        }
        if !outcome.violations.is_empty() {
            let text = format!("{case}: {}", outcome.violations.join("; "));
            println!("VIOLATION {text}\n    alone: make faults CASE='{case}'");
            report.violations.push(text);
        }
        if outcome.met || !outcome.violations.is_empty() {
            report.runs.push((case.clone(), outcome.end));
            let done = report.runs.len() + report.missed.len();
            if done.is_multiple_of(100) {
                println!("  {done} of {total}, violations: {}", report.violations.len());
            }
            return;
        }
    }
    report.lock().unwrap().missed.push(case.clone());
}

/// A fault that never happens shows nothing: kinds of builds of which too many were tried in vain.
fn missed_too_often(cases: &[Case], missed: &[Case]) -> Vec<String> {
    let of = |cases: &[Case], kind: Kind| cases.iter().filter(|case| case.kind == kind).count();
    let often = |kind: &Kind| of(missed, *kind) * ONE_MISSED_OF > of(cases, *kind);
    let often = KINDS.map(|(_, kind)| kind).into_iter().filter(often);
    often
        .map(|kind| {
            let which = missed.iter().filter(|case| case.kind == kind);
            let which: Vec<String> = which.map(ToString::to_string).collect();
            format!(
                "of {} faults of {kind} these did not happen: {}",
                of(cases, kind),
                which.join(", ")
            )
        })
        .collect()
}

/// One line for each fault: how its runs ended.
fn table(runs: &[(Case, End)]) -> String {
    let mut text = format!(
        "  {:<32}{:>6}{:>10}{:>12}{:>7}{:>10}{:>11}\n",
        "fault", "runs", "template", "as before", "left", "resumed", "collected"
    );
    for (name, trouble) in TROUBLES {
        let of: Vec<End> = runs
            .iter()
            .filter(|(case, _)| case.troubles[0].1 == trouble)
            .map(|(_, end)| *end)
            .collect();
        if of.is_empty() {
            continue;
        }
        let count = |wanted: End| of.iter().filter(|end| **end == wanted).count();
        let _ = writeln!(
            text,
            "  {name:<32}{:>6}{:>10}{:>12}{:>7}{:>10}{:>11}",
            of.len(),
            count(End::Template),
            count(End::Clean),
            count(End::Left),
            count(End::Resumed),
            count(End::Collected)
        );
    }
    text
}

/// Every fault at every point where it can happen.
fn at_every(kind: Kind, points: &[(Point, Stage)]) -> Vec<Case> {
    let faults = TROUBLES.map(|(_, trouble)| trouble);
    points
        .iter()
        .flat_map(|(point, stage)| {
            let fits = faults
                .iter()
                .filter(|trouble| trouble.fits(point, *stage) && kind.tries(**trouble, point, *stage));
            fits.map(|trouble| Case::of(kind, point.clone(), *trouble))
        })
        .collect()
}

/// Two or three faults in one build, of any kind.
fn at_random(singles: &[Vec<Case>], seed: u64, count: usize) -> Vec<Case> {
    let mut random = Random(seed);
    let mut cases: Vec<Case> = (0..count)
        .map(|_| {
            let of_kind = &singles[random.below(singles.len())];
            let several = 2 + random.below(2);
            let mut one = || of_kind[random.below(of_kind.len())].troubles[0].clone();
            Case::several(of_kind[0].kind, (0..several).map(|_| one()).collect())
        })
        .collect();
    cases.sort_by_key(|case| case.kind);
    cases
}

#[test]
fn whatever_breaks_a_build_ends_well() {
    let begun = Instant::now();
    let folder = Folder::new();
    let scope = Scope::from_environment();
    if let Scope::One(case) = &scope {
        let report = run_all(&folder, std::slice::from_ref(case), scope.pace(), true);
        assert_eq!(report.violations, Vec::<String>::new());
        assert_eq!(
            report.missed,
            [],
            "the fault did not happen: this build made no such call"
        );
        println!("{case}: {:?}, violations: 0", report.runs[0].1);
        return;
    }
    let mut singles = Vec::new();
    let mut cases = Vec::new();
    for (name, kind) in KINDS {
        let points = Lane::new(kind, scope.pace()).points(&folder);
        let all = at_every(kind, &points);
        let wanted = scope.of(kind, all.clone());
        let hit: BTreeSet<String> = all.iter().map(|case| case.troubles[0].0.to_string()).collect();
        println!(
            "{name}: {} points, {} of them hit here, {} faults at them, {} are run",
            points.len(),
            hit.len(),
            all.len(),
            wanted.len()
        );
        cases.extend(wanted);
        singles.push(all);
    }
    if matches!(scope, Scope::Share) {
        cases.extend(ONCE_WRONG.map(|case| case.parse::<Case>().unwrap()));
    }
    // A cluster is made anew for another kind.
    cases.sort_by_key(|case| case.kind);
    let mut report = run_all(&folder, &cases, scope.pace(), false);
    let points: BTreeSet<String> = cases
        .iter()
        .map(|case| format!("{} {}", case.kind, case.troubles[0].0))
        .collect();
    println!(
        "\n{} points x {} faults = {} runs, violations: {}",
        points.len(),
        TROUBLES.len(),
        report.runs.len(),
        report.violations.len()
    );
    println!(
        "  of {} where the fault can happen; {} were tried in vain, their call did not come\n{}",
        singles.iter().map(Vec::len).sum::<usize>(),
        report.missed.len(),
        table(&report.runs)
    );
    for all in &mut singles {
        all.retain(|case| !case.is_slow());
    }
    singles.retain(|all| all[0].kind != Kind::Ticket);

    let seed = match (&scope, std::env::var("K3SIMAGE_FAULTS_SEED")) {
        (Scope::Whole | Scope::Random, Ok(seed)) => seed.parse().expect("K3SIMAGE_FAULTS_SEED is a number"),
        (Scope::Whole | Scope::Random, Err(_)) => std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_secs()),
        _ => 1,
    };
    let pace = scope.pace();
    let wanted = match scope {
        Scope::Share => RANDOM_SHARE,
        Scope::Kind(_) => 0,
        _ => RANDOM,
    };
    println!("random runs, seed {seed}");
    let random = run_all(&folder, &at_random(&singles, seed, wanted), pace, false);
    let ends = |end: End| random.runs.iter().filter(|(_, seen)| *seen == end).count();
    println!(
        "random: {} runs of 2 or 3 faults, seed {seed}, violations: {}\n  template {}, as before {}, told what is left {}, \
         resumed {}, collected {}\nin {} s",
        random.runs.len(),
        random.violations.len(),
        ends(End::Template),
        ends(End::Clean),
        ends(End::Left),
        ends(End::Resumed),
        ends(End::Collected),
        begun.elapsed().as_secs()
    );
    report.violations.extend(random.violations);
    report.violations.extend(missed_too_often(&cases, &report.missed));
    assert!(report.violations.is_empty(), "{}", report.violations.join("\n"));
    assert!(matches!(scope, Scope::Random) || !report.runs.is_empty());
    assert!(matches!(scope, Scope::Kind(_)) || !random.runs.is_empty());
}

/// SplitMix64: the same numbers from the same seed, on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap_or_default()
    }
}
