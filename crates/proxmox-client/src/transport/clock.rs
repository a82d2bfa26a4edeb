//! `ServerClock`: what the server's clock shows, told by the `Date` of its answers.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime},
};

use http::{HeaderMap, header};

/// How far the server's clock is ahead of ours, in seconds. Two machines that work on one cluster agree on its time, not on
/// their own.
#[derive(Debug, Default)]
pub(crate) struct ServerClock {
    ahead_seconds: AtomicI64,
}

impl ServerClock {
    /// Takes the time from an answer. One without a date that can be read changes nothing.
    ///
    /// # Source
    /// pveproxy dates every answer (PVE/APIServer/AnyEvent.pm), to the second; so do all recorded ones.
    pub(crate) fn hear(&self, headers: &HeaderMap) {
        let told = headers.get(header::DATE).and_then(|date| date.to_str().ok());
        if let Some(server) = told.and_then(|date| httpdate::parse_http_date(date).ok()) {
            self.ahead_seconds
                .store(ahead(server, SystemTime::now()), Ordering::Relaxed);
        }
    }

    pub(crate) fn now(&self) -> SystemTime {
        shifted(SystemTime::now(), self.ahead_seconds.load(Ordering::Relaxed))
    }
}

/// How far `server` is ahead of `ours`. Within two seconds they agree: a date is cut to the second and was some time on its
/// way.
fn ahead(server: SystemTime, ours: SystemTime) -> i64 {
    let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    let ahead = match server.duration_since(ours) {
        Ok(ahead) => seconds(ahead),
        Err(behind) => -seconds(behind.duration()),
    };
    if ahead.abs() <= 2 { 0 } else { ahead }
}

/// A time beyond the clock's range stays where it was.
fn shifted(time: SystemTime, seconds: i64) -> SystemTime {
    let span = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        time.checked_sub(span).unwrap_or(time)
    } else {
        time.checked_add(span).unwrap_or(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_time_is_heard() {
        let clock = ServerClock::default();
        let near = |wanted: SystemTime| {
            let apart = clock
                .now()
                .duration_since(wanted)
                .unwrap_or_else(|behind| behind.duration());
            assert!(apart < Duration::from_secs(60), "{apart:?}");
        };
        near(SystemTime::now());
        let mut headers = HeaderMap::new();
        for hours in [5, 0, 7] {
            let server = SystemTime::now() + Duration::from_secs(hours * 3600);
            headers.insert(header::DATE, httpdate::fmt_http_date(server).parse().expect("a date"));
            clock.hear(&headers);
            near(server);
        }
        let past = SystemTime::now() - Duration::from_secs(3600);
        headers.insert(header::DATE, httpdate::fmt_http_date(past).parse().expect("a date"));
        clock.hear(&headers);
        near(past);
        for unreadable in ["", "yesterday", "99999999999999999999"] {
            headers.insert(header::DATE, unreadable.parse().expect("a header"));
            clock.hear(&headers);
            near(past);
        }
    }

    #[test]
    fn a_second_is_no_difference() {
        let now = SystemTime::now();
        for (server, wanted) in [(-4000, -4), (-2000, 0), (-900, 0), (0, 0), (2000, 0), (3000, 3)] {
            let span = Duration::from_millis(i64::unsigned_abs(server));
            let server = if server < 0 { now - span } else { now + span };
            assert_eq!(ahead(server, now), wanted);
        }
    }
}
