//! `bench failover` with one kill and a short watch: the shape of its result, and what follows from the
//! order of events. Nothing of how long they take beyond the timeout itself: this runs beside other tests.

mod running;

use running::{measure, number};

#[test]
fn kill_has_its_stages_and_a_watched_pair_its_rate() {
    let folder = tempfile::tempdir().unwrap();
    let result = measure(&[
        "failover",
        "--json",
        "--kills=1",
        "--silences=400",
        "--watch-s=0.5",
        "--rounds=1",
        "--out",
        folder.path().to_str().unwrap(),
    ]);
    let silences = result["silences"].as_array().expect("silences");
    let [silence] = &silences[..] else { panic!("{result}") };
    assert_eq!((&silence["silence_ms"], &silence["kills"]), (&400.into(), &1.into()));
    assert!(silence["failure"].is_null(), "{silence}");
    let p50_ms = |stage: &str| number(silence, &format!("/{stage}/p50_ns")) / 1e6;
    // The last sign of life may be a heartbeat old, a tenth of the timeout.
    assert!(p50_ms("detect") > 400.0 * 0.8, "{silence}");
    assert!(p50_ms("golive") > 0.0, "{silence}");
    // Who gets no answer waits for both, and for no less on a connection.
    assert!(p50_ms("outage") > p50_ms("detect") + p50_ms("golive") - 40.0, "{silence}");
    assert!(p50_ms("tcp_gap") > p50_ms("detect"), "{silence}");
    for stage in ["detect", "golive", "outage", "tcp_gap"] {
        let max = number(silence, &format!("/{stage}/max_ns"));
        assert!(max >= p50_ms(stage), "{silence}");
        assert!(folder.path().join(format!("failover.silence-400.{stage}.hlog")).exists());
    }
    for load in ["idle", "loaded"] {
        let of = |what: &str| number(silence, &format!("/false_alarms/{load}/{what}"));
        assert_eq!((of("never_protected"), of("watched_s")), (0.0, 0.5), "{silence}");
        assert!(of("protected_s") > 0.0, "{silence}");
        let rate = of("alarms") / of("protected_s") * 60.0;
        assert!((of("alarms_per_protected_minute") - rate).abs() < 1e-6, "{silence}");
    }
}
