//! Scenes for a lecture on fault tolerance by replication: each shows one property on real VMs, or what happens
//! without it in the simulator, and checks what it shows. `cargo run --release -p tests --bin lecture -- [SCENE]`
//!
//! | file | contents |
//! |---|---|
//! | `screen` | what the audience sees |
//! | `recording`, `watch` | a recorded VM and its log; a replay that shows what the machine does |
//! | `ping`, `readings`, `interrupt` | scenes of one VM that is recorded and replayed |
//! | `output_rule`, `split_brain`, `frozen` | scenes of a pair of real processes |
//! | `planted` | scenes of the simulator with a planted bug |
//! | `two_cores` | a scene of two threads, and of a VM with one vCPU |
//!
//! A scene returns an error if what it shows is not so. Like the tests, it panics if a process of the pair does not do
//! in time what must happen. `docs/lecture/README.md` has the output of each scene and what to say.

mod frozen;
mod interrupt;
mod output_rule;
mod ping;
mod planted;
mod readings;
mod recording;
pub mod screen;
mod split_brain;
mod two_cores;
mod watch;

use screen::Screen;
use testbed::TestbedError;

/// A scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// The log of one ping.
    Ping,
    /// A random number and a clock reading.
    Readings,
    /// Interrupts at the same instruction.
    Interrupt,
    /// A primary that dies between making and releasing an output.
    OutputRule,
    /// An output that is released too early.
    NoOutputRule,
    /// A backup that takes over without asking the witness.
    NoWitness,
    /// The log link is cut while both hosts are alive.
    SplitBrain,
    /// A primary that is frozen and thawed.
    Frozen,
    /// Threads on two cores.
    TwoCores,
}

impl Scene {
    /// All scenes in the order of a lecture.
    pub const ALL: [Scene; 9] = [
        Scene::Ping,
        Scene::Readings,
        Scene::Interrupt,
        Scene::OutputRule,
        Scene::NoOutputRule,
        Scene::NoWitness,
        Scene::SplitBrain,
        Scene::Frozen,
        Scene::TwoCores,
    ];

    /// Returns the name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Scene::Ping => "ping",
            Scene::Readings => "readings",
            Scene::Interrupt => "interrupt",
            Scene::OutputRule => "output-rule",
            Scene::NoOutputRule => "no-output-rule",
            Scene::NoWitness => "no-witness",
            Scene::SplitBrain => "split-brain",
            Scene::Frozen => "frozen",
            Scene::TwoCores => "two-cores",
        }
    }

    /// Returns what the scene shows, in one line.
    pub const fn title(self) -> &'static str {
        match self {
            Scene::Ping => "the log of one ping, entry by entry",
            Scene::Readings => "a random number and a clock reading are replayed equal",
            Scene::Interrupt => "a replay takes each interrupt at the recorded instruction",
            Scene::OutputRule => "a primary is killed between making and releasing an output",
            Scene::NoOutputRule => "without the output rule (simulator, planted bug)",
            Scene::NoWitness => {
                "split brain: takeover without a test-and-set (simulator, planted bug)"
            }
            Scene::SplitBrain => "split brain: with the test-and-set, exactly one host lives",
            Scene::Frozen => "a frozen primary finds itself deposed when it thaws",
            Scene::TwoCores => "two cores are not a function of their inputs; one is",
        }
    }

    /// Returns the section of Scales et al. (2010) that describes what the scene shows.
    pub const fn section(self) -> &'static str {
        match self {
            Scene::Ping | Scene::Readings | Scene::Interrupt => {
                "2.1 Deterministic Replay Implementation"
            }
            Scene::OutputRule | Scene::NoOutputRule => "2.2 FT Protocol",
            Scene::NoWitness | Scene::SplitBrain | Scene::Frozen => {
                "2.3 Detecting and Responding to Failure"
            }
            Scene::TwoCores => "1 Introduction",
        }
    }

    /// Returns whether the scene runs VMs, and so needs root and `/dev/kvm`.
    pub const fn runs_vms(self) -> bool {
        match self {
            Scene::Ping
            | Scene::Readings
            | Scene::Interrupt
            | Scene::OutputRule
            | Scene::SplitBrain
            | Scene::Frozen
            | Scene::TwoCores => true,
            Scene::NoOutputRule | Scene::NoWitness => false,
        }
    }

    /// Returns the scene with this name.
    pub fn by_name(name: &str) -> Option<Scene> {
        Scene::ALL.into_iter().find(|scene| scene.name() == name)
    }

    /// Plays the scene on `screen`.
    ///
    /// # Errors
    ///
    /// If it can't be played, or what it shows is not so.
    ///
    /// # Panics
    ///
    /// If a process of a pair fails, or does not do in time what must happen.
    pub fn play(self, screen: &mut Screen) -> Result<(), TestbedError> {
        screen.heading(self);
        match self {
            Scene::Ping => ping::play(screen),
            Scene::Readings => readings::play(screen),
            Scene::Interrupt => interrupt::play(screen),
            Scene::OutputRule => output_rule::play(screen),
            Scene::NoOutputRule => planted::play_without_output_rule(screen),
            Scene::NoWitness => planted::play_without_witness(screen),
            Scene::SplitBrain => split_brain::play(screen),
            Scene::Frozen => frozen::play(screen),
            Scene::TwoCores => two_cores::play(screen),
        }
    }
}
