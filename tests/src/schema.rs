//! Checks that what the program prints as JSON fits the schemas in `docs/schema`, with the validator of the package
//! python3-jsonschema.

use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Reads a schema and a line for each object, and prints the first error of each object.
const VALIDATOR: &str = "
import json, sys
from jsonschema import Draft202012Validator
with open(sys.argv[1]) as file:
    schema = json.load(file)
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
wrong = 0
for line in sys.stdin:
    for error in list(validator.iter_errors(json.loads(line)))[:1]:
        wrong += 1
        print(error.json_path, error.message[:300], line, sep='\\n')
sys.exit(wrong != 0)
";

/// Returns the errors of `objects` by the schema `name`; an empty text if there are none.
///
/// # Panics
///
/// If the validator can't be run.
pub fn errors(name: &str, objects: &[Value]) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
    let schema = folder.join(format!("{name}.schema.json"));
    let mut validator = Command::new("python3")
        .arg("-c")
        .arg(VALIDATOR)
        .arg(&schema)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts (scripts/install.sh --tests)");
    let lines: String = objects.iter().map(|object| format!("{object}\n")).collect();
    let mut input = validator.stdin.take().expect("it is piped");
    // It ends early if the schema itself is wrong.
    let _ = input.write_all(lines.as_bytes());
    drop(input);
    let output = validator.wait_with_output().expect("the validator ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() || !text.is_empty(),
        "{} can't be checked: is python3-jsonschema installed (scripts/install.sh --tests)?",
        schema.display()
    );
    text
}

/// Requires that `objects` fit the schema `name`.
///
/// # Panics
///
/// If one of them does not, or the validator can't be run.
pub fn fits(name: &str, objects: &[Value]) {
    assert!(!objects.is_empty(), "{name}: nothing to check");
    let errors = errors(name, objects);
    assert!(errors.is_empty(), "does not fit docs/schema/{name}.schema.json: {errors}");
}
