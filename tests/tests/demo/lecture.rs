//! The scenes of the lecture, as a lecturer plays them. Each checks what it shows.

use serde_json::Value;
use std::process::Command;
use tests::alone::together;
use tests::program::json;

/// Plays a scene, and returns its figures.
fn play(scene: &str) -> Value {
    let _turn = together();
    let output = Command::new(env!("CARGO_BIN_EXE_lecture")).args(["--json", scene]).output();
    let output = output.expect("it starts");
    let [stdout, stderr] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "{}: {stderr}", output.status);
    let result = json(&stdout);
    assert_eq!(result["scene"], scene);
    result["figures"].clone()
}

fn number(figures: &Value, name: &str) -> u64 {
    figures[name].as_u64().unwrap_or_else(|| panic!("no number {name}: {figures}"))
}

#[test]
fn ping_is_an_input_an_interrupt_and_an_output() {
    assert!(number(&play("ping"), "entries") >= 4);
}

#[test]
fn random_number_and_clock_reading_are_replayed() {
    assert!(number(&play("readings"), "clock_ns") > 0);
}

#[test]
fn interrupts_are_replayed_at_their_instructions() {
    assert!(number(&play("interrupt"), "interrupts") > 10);
}

#[test]
fn killed_primary_has_released_nothing_that_the_backup_lacks() {
    let figures = play("output-rule");
    assert!(number(&figures, "outputs_waiting") > 0 && number(&figures, "outputs_released") > 0);
    assert_eq!(number(&figures, "early"), 0);
}

#[test]
fn without_the_output_rule_the_simulator_finds_damage() {
    assert!(number(&play("no-output-rule"), "seed") > 0);
}

#[test]
fn without_the_witness_the_simulator_finds_two_speakers() {
    assert!(number(&play("no-witness"), "seed") > 0);
}

#[test]
fn with_the_witness_one_host_lives() {
    let figures = play("split-brain");
    assert_eq!(figures["claims"].as_array().map(Vec::len), Some(2), "{figures}");
}

#[test]
fn thawed_primary_ends() {
    assert_eq!(number(&play("frozen"), "exit_code"), 14);
}

#[test]
fn two_cores_differ_and_one_vcpu_does_not() {
    let figures = play("two-cores");
    assert!(number(&figures, "different_sums") > 1 || number(&figures, "cores") == 1, "{figures}");
}
