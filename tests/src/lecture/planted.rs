//! What happens without a rule: the simulator of the pair runs the code that ships, with one rule switched off, until its
//! checkers find the damage. (No such program ships: [`replication::Mutants`].)

use super::screen::Screen;
use crate::sim::counts::Counts;
use crate::sim::runner::{Scenario, run_one};
use crate::sim::system::System;
use crate::sim::system::mutants::Planted;
use crate::sim::trace::Trace;
use replication::Mutant;
use testbed::TestbedError;

/// Seeds that are tried. The planted bugs of this file are found within a few.
const SEEDS_MAX: u64 = 500;

/// Events of a trace that are not shown, because there are too many of them.
const LEFT_OUT: [&str; 8] =
    [" send ", " got ", " ask ", " answered ", " replayed ", " notice ", " state ", " rate "];

/// Lines of a trace that are shown, and the longest.
const LINES: usize = 12;
const COLUMNS: usize = 118;

/// Characters that are shown of the end of a line that is too long: there is the answer of the witness.
const END: usize = 30;

/// A run that a checker has ended.
struct Damage {
    seed: u64,
    violation: String,
    /// The last events.
    lines: Vec<String>,
}

pub(super) fn play_without_output_rule(screen: &mut Screen) -> Result<(), TestbedError> {
    screen.say(
        "This is the simulator: two engines of the program that ships, toy machines, a simulated network. One rule is \
         switched\noff: an output leaves at once, without waiting for the backup's acknowledgement (ReleaseBeforeAck).",
    );
    let is_wanted =
        |damage: &Damage| damage.violation.contains("could take over") && damage.has(" output ");
    let damage = show(screen, Mutant::ReleaseBeforeAck, is_wanted)?;
    screen.say(
        "The checker stops the run at this moment: a host is giving the output to the LAN. If it dies right after that, the \
         other\nhost takes over in an earlier state, and does not know that the output was ever made: a bank's client has \
         a receipt,\nand the bank has no transfer.",
    );
    repeat_without(screen, &damage)
}

pub(super) fn play_without_witness(screen: &mut Screen) -> Result<(), TestbedError> {
    screen.say(
        "This is the simulator again. Another rule is switched off: a backup that hears nothing goes live without \
         winning the\ntest-and-set at the witness (LiveWithoutWitness). The link between the hosts was cut; both are alive.",
    );
    let is_wanted = |damage: &Damage| {
        damage.has("Partition") && damage.has("PrimarySilent") && !damage.has(" end ")
    };
    let damage = show(screen, Mutant::LiveWithoutWitness, is_wanted)?;
    screen.say(
        "The other host has not died: it runs the same VM with the same addresses, and has the witness's permission or may \
         get it.\nSilence can't be told from death; only something that both hosts can ask, and that says yes once, can \
         decide.",
    );
    repeat_without(screen, &damage)
}

/// Searches for a seed with damage that `is_wanted`, and shows its end.
fn show(
    screen: &mut Screen,
    mutant: Mutant,
    is_wanted: impl Fn(&Damage) -> bool,
) -> Result<Damage, TestbedError> {
    let system = System { planted: Some(Planted::Engine(mutant)) };
    let damage = (1..=SEEDS_MAX).filter_map(|seed| run(&system, seed)).find(is_wanted);
    let damage = damage.ok_or_else(|| {
        TestbedError::Wrong(format!("{mutant:?} did no such damage in {SEEDS_MAX} seeds"))
    })?;
    screen.say("             time, us  host event       (the last events of the run; the frames of the log are left out)");
    for line in &damage.lines {
        screen.show(line);
    }
    screen.check(
        true,
        format_args!("a checker outside the program has found: {}", damage.violation),
    )?;
    screen.show(format_args!("again: {}", system.command(damage.seed)));
    screen.figure("seed", damage.seed);
    screen.figure("violation", damage.violation.clone());
    Ok(damage)
}

/// Runs the seed of `damage` without a planted bug.
fn repeat_without(screen: &mut Screen, damage: &Damage) -> Result<(), TestbedError> {
    screen.say("The same seed, so the same faults, with the rule:");
    let violation = run(&System { planted: None }, damage.seed).map(|damage| damage.violation);
    screen.check(
        violation.is_none(),
        format_args!("seed {} runs to its end and heals; the checkers find nothing", damage.seed),
    )
}

/// Runs a seed. Returns the damage, if there is any.
fn run(system: &System, seed: u64) -> Option<Damage> {
    let mut trace = Trace::Keep(String::new());
    let violation = run_one(system, seed, &mut Counts::default(), &mut trace).err()?.0;
    let Trace::Keep(text) = trace else { unreachable!("it was kept") };
    let is_shown = |line: &&str| !LEFT_OUT.iter().any(|event| line.contains(event));
    let mut lines: Vec<String> =
        text.lines().rev().filter(is_shown).take(LINES).map(shortened).collect();
    lines.reverse();
    Some(Damage { seed, violation, lines })
}

fn shortened(line: &str) -> String {
    let line: Vec<char> = line.chars().collect();
    match line.len() {
        ..=COLUMNS => line.into_iter().collect(),
        length => {
            let parts = [&line[..COLUMNS - END], &['.'; 3], &line[length - END..]];
            parts.into_iter().flatten().collect()
        }
    }
}

impl Damage {
    fn has(&self, what: &str) -> bool {
        self.lines.iter().any(|line| line.contains(what))
    }
}
