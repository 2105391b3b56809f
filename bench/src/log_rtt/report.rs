//! What was measured, as a table and as JSON.

use super::policy::Policy;
use super::round_trips::Subject;
use super::variant::Variant;
use crate::error::BenchError;
use crate::series::ratio;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// Medians of a variant in relation to those of others under comparable policies.
struct Ratios {
    to_udp: Option<f64>,
    to_tcp: Option<f64>,
    /// Of an idle line, to UDP that blocks at the same pace.
    to_udp_block: Option<f64>,
}

impl Ratios {
    fn new(subject: &Subject, all: &[Subject]) -> Ratios {
        let p50 = |variant, policy| {
            let other = all.iter().find(|s| s.variant == variant && s.policy == policy)?;
            ratio(subject.times.quantile_ns(0.5), other.times.quantile_ns(0.5))
        };
        let to_udp_block = match subject.policy {
            Policy::Idle => p50(Variant::Udp, Policy::IdleBlock),
            Policy::Block | Policy::Spin | Policy::IdleBlock => None,
        };
        let [to_udp, to_tcp] = [Variant::Udp, Variant::Tcp].map(|v| p50(v, subject.policy));
        Ratios { to_udp, to_tcp, to_udp_block }
    }
}

/// By variant and policy.
pub(super) fn round_trips(subjects: &[Subject]) -> Value {
    let mut variants: Map<String, Value> = Map::new();
    for subject in subjects {
        let ratios = Ratios::new(subject, subjects);
        let mut result = subject.times.json();
        result["requests"] = subject.times.len().into();
        result["ratio_p50_to_udp"] = json!(ratios.to_udp);
        result["ratio_p50_to_tcp"] = json!(ratios.to_tcp);
        if subject.policy == Policy::Idle {
            result["ratio_p50_to_udp_block"] = json!(ratios.to_udp_block);
        }
        let variant = variants.entry(subject.variant.name()).or_insert_with(|| json!({}));
        variant[subject.policy.name()] = result;
    }
    variants.into()
}

/// The table for people.
pub(super) fn print(subjects: &[Subject]) {
    println!(
        "{:<10} {:<17} {:>9} {:>9} {:>9} {:>9} {:>7} {:>7}",
        "policy", "variant", "requests", "p50 us", "p99 us", "p99.9 us", "/udp", "/tcp"
    );
    for subject in subjects {
        let us = |quantile| subject.times.quantile_ns(quantile) as f64 / 1000.0;
        let ratios = Ratios::new(subject, subjects);
        let text = |ratio: Option<f64>| ratio.map_or(String::from("-"), |r| format!("{r:.2}"));
        print!(
            "{:<10} {:<17} {:>9} {:>9.2} {:>9.2} {:>9.2} {:>7} {:>7}",
            subject.policy.name(),
            subject.variant.name(),
            subject.times.len(),
            us(0.5),
            us(0.99),
            us(0.999),
            text(ratios.to_udp),
            text(ratios.to_tcp)
        );
        match ratios.to_udp_block {
            Some(ratio) => println!("   {ratio:.2} of udp, blocking"),
            None => println!(),
        }
    }
}

/// Saves every series to `folder`, which is made if need be.
pub(super) fn save(folder: &Path, subjects: &[Subject]) -> Result<(), BenchError> {
    fs::create_dir_all(folder).map_err(BenchError::os(format!("making {}", folder.display())))?;
    for subject in subjects {
        let name = format!("log-rtt-{}-{}", subject.variant.name(), subject.policy.name());
        subject.times.save(folder, &name)?;
    }
    Ok(())
}
