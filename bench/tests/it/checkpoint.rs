//! `bench checkpoint` with two short combinations: the structure of its result, and that it shows the
//! working set. No times are checked, because other tests run at the same time.

use crate::running::{measure, number};

#[test]
fn checkpoint_with_larger_working_set_is_larger() {
    let result = measure(&[
        "checkpoint",
        "--json",
        "--deadlines-us=1000",
        "--kib=0,256",
        "--inputs=0",
        "--seconds=1",
    ]);
    let points = result["points"].as_array().expect("points");
    assert_eq!(points.len(), 2, "{result}");
    for (point, kib) in points.iter().zip([0, 256]) {
        assert_eq!((&point["deadline_us"], &point["kib"]), (&1000.into(), &kib.into()));
        assert_eq!(point["inputs_per_s"], 0);
        let of = |pointer| number(point, pointer);
        // Each tick is an input to a computing guest, so it takes a checkpoint.
        assert!(of("/checkpoints") > 5.0, "{point}");
        assert!(of("/rounds_per_ms") > 0.0, "{point}");
        // A slow host takes fewer checkpoints, and more of each page changes between two of them.
        let whole = of("/pages_each/mean") * 4096.0;
        assert!((100.0..whole).contains(&of("/bytes_each")), "page deltas: {point}");
        assert!(of("/pages_each/p50") <= of("/pages_each/p99"), "{point}");
        for what in ["capture", "still", "apply"] {
            let [p50, p99, max] = ["p50_ns", "p99_ns", "max_ns"]
                .map(|name| number(point, &format!("/{what}/{name}")));
            assert!(0.0 < p50 && p50 <= p99 && p99 <= max, "{point}");
            assert!(number(point, &format!("/{what}/count")) > 5.0, "{point}");
        }
        assert!(
            of("/capture/p50_ns") <= of("/still/p50_ns"),
            "the capture is part of the time stopped"
        );
    }
    let [small, large] = [&points[0], &points[1]].map(|point| number(point, "/pages_each/mean"));
    // Some checkpoints happen between two burns.
    assert!(large >= small + 16.0, "{small} and {large} pages");
    let [small, large] = [&points[0], &points[1]].map(|point| number(point, "/bytes_each"));
    // A page's number, its delta mask and one word.
    assert!(large >= small + 16.0 * 20.0, "{small} and {large} bytes");
}
