//! Runs the benchmark program and checks what every result must contain.

use serde_json::Value;
use std::process::{Command, Output};

/// Runs `bench COMMAND`.
pub(crate) fn bench(command: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench")).args(command).output().expect("bench starts")
}

/// Runs `bench COMMAND`, which must succeed, and parses the JSON object on its last line.
pub(crate) fn measure(command: &[&str]) -> Value {
    let output = bench(command);
    let [text, errors] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "{text}{errors}");
    let result: Value = serde_json::from_str(text.lines().last().expect("a result")).expect("JSON");
    assert_eq!(result["benchmark"], command[0]);
    assert!(result["machine"]["command"].as_str().is_some_and(|line| line.contains(command[0])));
    result
}

/// Returns a number of the result.
pub(crate) fn number(value: &Value, pointer: &str) -> f64 {
    let number = value.pointer(pointer).and_then(Value::as_f64);
    number.unwrap_or_else(|| panic!("no number at {pointer}: {value}"))
}
