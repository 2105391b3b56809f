//! The supervisors of the simulated processes: whether a process has one, whether it survives the process, and
//! when it sends the death notice. What they hold is up to the simulators.

use super::rng::{Chance, Rng};
use super::{MS, US};

/// Makes the generator independent of the others, so that these draws leave the meaning of a seed as it was.
const SALT: u64 = 0x7375_7065_7276_6973;

/// Number of times that a notice is sent.
const COPIES: usize = 3;

/// The options of the supervisors of a run, drawn from its seed.
#[derive(Clone, Debug)]
pub struct SupervisorOptions {
    /// Whether processes have a supervisor.
    exist: bool,
    /// Probability that a supervisor dies together with its process, as in a loss of power.
    dies_too: Chance,
    /// Maximum time from the end of a process until its supervisor sends the first copy of the notice, and
    /// between two copies.
    delay_ns_max: u64,
    pause_ns_max: u64,
    /// Probability that a supervisor takes nothing now.
    refuses: Chance,
}

/// The supervisors of both hosts.
#[derive(Debug)]
pub struct Supervisors {
    options: SupervisorOptions,
    rng: Rng,
}

impl Supervisors {
    /// Creates the supervisors of a seed's run, with processes that fall silent after `silence_ns`.
    pub fn new(seed: u64, silence_ns: u64) -> Self {
        let mut rng = Rng::new(seed ^ SALT);
        let often_ns = rng.magnitude(10 * US..=MS);
        let seldom_ns = rng.magnitude(MS..=2 * silence_ns);
        let options = SupervisorOptions {
            exist: rng.chance(Chance::percent(65)),
            dies_too: rng.swarm(Chance::percent(60), 100_000..=600_000),
            delay_ns_max: rng.pick(&[often_ns, often_ns, seldom_ns]),
            pause_ns_max: rng.magnitude(10 * US..=10 * MS),
            refuses: rng.swarm(Chance::percent(30), 10_000..=300_000),
        };
        Self { options, rng }
    }

    /// Draws whether a supervisor that is given a notice takes it now.
    pub fn takes(&mut self) -> bool {
        self.options.exist && !self.rng.chance(self.options.refuses)
    }

    /// Draws when a supervisor sends the copies of its notice, in nanoseconds after the end of its process. There
    /// are none if it is dead, too.
    pub fn sends_after(&mut self) -> Vec<u64> {
        if !self.options.exist || self.rng.chance(self.options.dies_too) {
            return Vec::new();
        }
        let mut after_ns = self.rng.magnitude(1..=self.options.delay_ns_max);
        let mut sends = vec![after_ns];
        while sends.len() < COPIES {
            after_ns += self.rng.magnitude(1..=self.options.pause_ns_max);
            sends.push(after_ns);
        }
        sends
    }

    /// Draws which of `count` recorded notices an attacker sends again, and to which host.
    pub fn replays(&mut self, count: usize) -> Option<(usize, usize)> {
        (count > 0).then(|| (self.rng.below(count as u64) as usize, self.rng.below(2) as usize))
    }

    /// The options, for the trace.
    pub fn options(&self) -> &SupervisorOptions {
        &self.options
    }
}
