//! The program `understudy`; see [`vmm::cli`].

vmm::replace_clock_gettime!();

fn main() -> std::process::ExitCode {
    vmm::cli::main()
}
