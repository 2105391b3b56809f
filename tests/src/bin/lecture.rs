//! Plays the scenes of a lecture: `cargo run --release -p tests --bin lecture -- [SCENE...]`, or `scripts/lecture.sh`.

use clap::Parser;
use clap::builder::PossibleValuesParser;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Instant;
use testbed::TestbedError;
use tests::lecture::Scene;
use tests::lecture::screen::{Screen, Text};
use vmm::{outln, stdio};

// Some scenes replay a log in this process.
vmm::replace_clock_gettime!();

/// Show how a fault-tolerant VM works, one property after the other. Each scene checks what it shows
///
/// A scene takes a few seconds. Those of VMs need root, /dev/kvm and /dev/net/tun, and make network namespaces that they
/// remove. Exit codes: 0 if all that was shown is so, 1 if something is not, 2 for a wrong option, 101 if a process of a
/// pair did not do in time what must happen.
#[derive(Parser)]
#[command(name = "lecture")]
struct Args {
    /// Scenes to play [default: all, in the order of --list]
    #[arg(value_name = "SCENE", value_parser = names())]
    scenes: Vec<String>,
    /// List the scenes
    #[arg(long, conflicts_with = "scenes")]
    list: bool,
    /// Print one JSON object for each scene on standard output, and the text on standard error
    #[arg(long)]
    json: bool,
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(Scene::ALL.map(Scene::name))
}

fn main() -> ExitCode {
    let Args { scenes, list, json } = Args::parse();
    if list {
        Scene::ALL.into_iter().for_each(|scene| print_row(scene, json));
        return stdio::finish("lecture");
    }
    let named: Vec<Scene> = scenes.iter().filter_map(|name| Scene::by_name(name)).collect();
    let scenes = if named.is_empty() { Scene::ALL.to_vec() } else { named };
    if scenes.iter().any(|scene| scene.runs_vms()) && !nix::unistd::geteuid().is_root() {
        stdio::failure(format_args!("lecture: {}", TestbedError::NotRoot));
        return ExitCode::FAILURE;
    }
    for scene in scenes {
        if let Err(error) = play(scene, json) {
            stdio::failure(format_args!("lecture: {}: {error}", scene.name()));
            return ExitCode::FAILURE;
        }
    }
    stdio::finish("lecture")
}

fn print_row(scene: Scene, json: bool) {
    let (name, title, section) = (scene.name(), scene.title(), scene.section());
    if json {
        outln!("{}", json!({ "scene": name, "title": title, "section": section }));
    } else {
        outln!("{name:<15} {title} ({section})");
    }
}

/// Plays a scene, and prints its figures if `json`.
fn play(scene: Scene, json: bool) -> Result<(), TestbedError> {
    let begun = Instant::now();
    let mut screen = Screen::new(if json { Text::Messages } else { Text::Results });
    scene.play(&mut screen)?;
    let seconds = begun.elapsed().as_secs_f64();
    if json {
        let figures = Value::Object(screen.figures());
        outln!("{}", json!({ "scene": scene.name(), "seconds": seconds, "figures": figures }));
    } else {
        outln!("  ({seconds:.1} s)\n");
    }
    Ok(())
}
