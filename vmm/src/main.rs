//! The program; see [`vmm::cli`].

fn main() -> std::process::ExitCode {
    vmm::cli::main()
}
