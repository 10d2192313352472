//! `cargo run -p xtask -- layers`: checks on the house itself. The same checks run as tests.

mod layers;

use std::process::ExitCode;

fn main() -> ExitCode {
    let task = std::env::args().nth(1).unwrap_or_default();
    let outcome = match task.as_str() {
        "layers" => layers::workspace().map(|packages| layers::violations(&packages)),
        other => Err(format!("unknown task {other:?}; there is: layers")),
    };
    match outcome {
        Ok(violations) if violations.is_empty() => {
            println!("{task}: in order");
            ExitCode::SUCCESS
        }
        Ok(violations) => {
            violations.iter().for_each(|violation| eprintln!("{violation}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{task}: {error}");
            ExitCode::FAILURE
        }
    }
}
