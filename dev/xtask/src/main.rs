//! `cargo run -p xtask -- layers`: checks on the house itself. The same checks run as tests.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod docs;
mod fuzz;
mod layers;

use std::process::ExitCode;

fn main() -> ExitCode {
    let task = std::env::args().nth(1).unwrap_or_default();
    let outcome = match task.as_str() {
        "layers" => layers::workspace().map(|packages| layers::violations(&packages)),
        "docs" => docs::write().map(|()| Vec::new()),
        "fuzz" => {
            let argument = |at: usize| std::env::args().nth(at).unwrap_or_default();
            let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
            let root = root.unwrap_or_else(|| std::path::Path::new("."));
            fuzz::run(root, &argument(2), &argument(3)).map(|()| Vec::new())
        }
        other => Err(format!("unknown task {other:?}; there are: docs, fuzz NAME SECONDS, layers")),
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
