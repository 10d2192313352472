//! `cargo run -p xtask -- layers`: checks on the house itself. The same checks run as tests.

mod docs;
mod layers;

use std::process::ExitCode;

fn main() -> ExitCode {
    let task = std::env::args().nth(1).unwrap_or_default();
    let outcome = match task.as_str() {
        "layers" => layers::workspace().map(|packages| layers::violations(&packages)),
        "docs" => docs::write().map(|()| Vec::new()),
        other => Err(format!("unknown task {other:?}; there are: docs, layers")),
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
