//! Guest time on host timers: scaled, and standing still while the virtual CPUs are paused.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::options::TimeScale;

/// Converts guest time to host time and sleeps in it.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    scale: TimeScale,
    paused: watch::Receiver<bool>,
}

impl Clock {
    pub(super) fn new(scale: TimeScale, paused: watch::Receiver<bool>) -> Self {
        Self { scale, paused }
    }

    /// Host time that so much guest time takes.
    pub(super) fn host(&self, guest: Duration) -> Duration {
        host_duration(self.scale, guest)
    }

    pub(super) fn is_instant(&self) -> bool {
        self.scale == TimeScale::Instant
    }

    /// Waits until so much guest time has passed.
    pub(super) async fn sleep(&self, guest: Duration) {
        self.sleep_host(self.host(guest)).await;
    }

    /// Waits until so much host time has passed in which the CPUs ran.
    pub(super) async fn sleep_host(&self, duration: Duration) {
        let mut remaining = duration;
        let mut paused = self.paused.clone();
        loop {
            // The sender lives as long as the guest; without it nobody can resume, so time goes on.
            if paused.wait_for(|paused| !*paused).await.is_err() {
                tokio::time::sleep(remaining).await;
                return;
            }
            if remaining.is_zero() {
                return;
            }
            let began = Instant::now();
            tokio::select! {
                () = tokio::time::sleep(remaining) => return,
                _ = paused.wait_for(|paused| *paused) => remaining = remaining.saturating_sub(began.elapsed()),
            }
        }
    }
}

pub(super) fn host_duration(scale: TimeScale, guest: Duration) -> Duration {
    match scale {
        TimeScale::Instant => Duration::ZERO,
        TimeScale::Scaled(factor) if factor.is_finite() && factor > 0.0 => {
            Duration::try_from_secs_f64(guest.as_secs_f64() / factor).unwrap_or(Duration::MAX)
        }
        TimeScale::Real | TimeScale::Scaled(_) => guest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales() {
        let minute = Duration::from_secs(60);
        for (scale, expected) in [
            (TimeScale::Instant, Duration::ZERO),
            (TimeScale::Real, minute),
            (TimeScale::Scaled(60.0), Duration::from_secs(1)),
            (TimeScale::Scaled(0.5), Duration::from_secs(120)),
            (TimeScale::Scaled(0.0), minute),
            (TimeScale::Scaled(f64::NAN), minute),
        ] {
            assert_eq!(host_duration(scale, minute), expected, "{scale:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_stops_the_clock() {
        let (pause, paused) = watch::channel(false);
        let clock = Clock::new(TimeScale::Real, paused);
        let began = Instant::now();
        let sleeper = tokio::spawn(async move { clock.sleep(Duration::from_secs(10)).await });
        tokio::time::sleep(Duration::from_secs(4)).await;
        pause.send(true).unwrap();
        tokio::time::sleep(Duration::from_secs(100)).await;
        pause.send(false).unwrap();
        sleeper.await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 110);
    }
}
