//! Sends frames at random moments, and finds out when each was delivered.

use crate::error::BenchError;
use crate::series::Series;
use crate::stage_trace::StageTrace;
use std::net::{Ipv4Addr, UdpSocket};
use std::ops::RangeInclusive;
use std::time::Duration;
use vmm::demo::clients::ECHO_PORT;
use vmm::demo::standalone::GUEST_ADDRESS;
use vmm::link::now;

/// Frames that were sent and when, by the clock of `vmm::link::now`.
pub(super) struct Sent(Vec<u64>);

/// Sends `count` datagrams to the guest's echo service, each so many microseconds (at random) after
/// `before` returned; then `after` is called. Answers are not waited for: a guest that computes gives
/// none before it is done. Called where the client is.
pub(super) fn send(
    count: u64,
    gap_us: RangeInclusive<u64>,
    seed: u64,
    mut before: impl FnMut() -> Result<(), BenchError>,
    mut after: impl FnMut() -> Result<(), BenchError>,
) -> Result<Sent, BenchError> {
    let failed = || BenchError::os("sending a datagram to the guest");
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(failed())?;
    socket.connect((GUEST_ADDRESS, ECHO_PORT)).map_err(failed())?;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut sent = Vec::with_capacity(count as usize);
    for number in 0..count {
        before()?;
        std::thread::sleep(Duration::from_micros(random.u64(gap_us.clone())));
        sent.push(now().as_nanos());
        socket.send(&number.to_le_bytes()).map_err(failed())?;
        after()?;
    }
    Ok(Sent(sent))
}

impl Sent {
    /// From each frame's sending to the guest's acknowledgement of the first interrupt that was injected
    /// after it; and how many frames had none before the next was sent.
    pub(super) fn delivered(&self, trace: &StageTrace) -> (Series, u64) {
        let mut series = Series::new();
        let mut missing = 0;
        let mut deliveries = trace.deliveries.iter().peekable();
        for (index, &sent) in self.0.iter().enumerate() {
            let next = self.0.get(index + 1).copied().unwrap_or(u64::MAX);
            while deliveries.next_if(|delivery| delivery.injected < sent).is_some() {}
            match deliveries.peek() {
                Some(delivery) if delivery.injected < next => {
                    series.record(delivery.served - sent);
                }
                Some(_) | None => missing += 1,
            }
        }
        (series, missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm::telemetry::Passage;

    #[test]
    fn frame_is_delivered_by_the_first_interrupt_after_it() {
        let delivery = |taken, injected| Passage {
            taken,
            injected,
            served: injected + 5,
            ..Passage::default()
        };
        let trace = StageTrace {
            // The second was of a frame that the guest had taken without an interrupt.
            deliveries: vec![
                delivery(90, 95),
                delivery(80, 120),
                delivery(210, 230),
                delivery(400, 450),
            ],
            answers: Vec::new(),
        };
        let (series, missing) = Sent(vec![100, 200, 300, 350]).delivered(&trace);
        assert_eq!((series.len(), missing), (3, 1));
        assert_eq!([0.0, 0.5, 1.0].map(|quantile| series.quantile_ns(quantile)), [25, 35, 105]);
    }
}
