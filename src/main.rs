//! The `forestall` command: everything is in the library.

fn main() -> std::process::ExitCode {
    forestall::cli::run()
}
