//! Results: a table for people, one JSON object for programs.

use serde_json::{Map, Value};

/// Prints `result` as one JSON object, or as lines of `name value`.
pub fn print(result: &Map<String, Value>, json: bool) {
    if json {
        println!("{}", Value::Object(result.clone()));
        return;
    }
    let width = result.keys().map(String::len).max().unwrap_or(0);
    for (name, value) in result {
        match value {
            Value::String(text) => println!("{name:width$}  {text}"),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => println!("{name:width$}  {value}"),
        }
    }
}

/// A digest as results print it.
pub fn hex(digest: u64) -> Value {
    Value::String(format!("{digest:016x}"))
}
