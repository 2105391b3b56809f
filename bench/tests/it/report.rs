//! `bench report` with its fastest topic: the page, the figures and the series; and wrong options.

use serde_json::Value;
use std::fs;
use std::process::{Command, Output};

fn bench(command: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench")).args(command).output().expect("bench starts")
}

#[test]
fn report_page_is_self_contained_and_shows_figures_and_plots() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new/folder");
    let output = bench(&["report", "--quick", "--only=throughput", "--out", out.to_str().unwrap()]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("What protection costs") && page.ends_with("</html>\n"));
    assert_eq!(page.matches("<svg ").count(), 1, "one plot");
    for reference in ["src=", "href=", "@import", "url("] {
        assert!(!page.contains(reference), "{reference}");
    }
    let text = fs::read_to_string(out.join("report.json")).unwrap();
    let figures: Value = serde_json::from_str(&text).unwrap();
    let throughput = &figures["measurements"]["throughput"];
    let rate = throughput["work"]["counter-1"]["protected"]["per_second"].as_f64().unwrap();
    assert!(page.contains(&format!("<td>{rate:.0}</td>")), "the page shows what was measured");
    for ending in ["hgrm", "hlog"] {
        assert!(out.join(format!("throughput.protected.counter-1.{ending}")).exists());
    }
}

#[test]
fn report_with_wrong_options_fails_with_one_line() {
    let output = bench(&["report", "--quick", "--out", "/proc/nowhere"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("/proc/nowhere"), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}
