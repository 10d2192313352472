//! Tables of commands with what they print. The test crates of `local` and `e2e` include this file by its path.
//!
//! ```text
//! $ COMMAND     by a shell
//! < LINE        of its standard input
//! > TEXT        some line of what it prints contains this; * stands for anything
//! ! N           its exit status, 0 when not said
//! @ N           only from this version on of what is tried
//! ```

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

struct Row {
    line: usize,
    command: String,
    input: String,
    wanted: Vec<String>,
    exit: i32,
    since: u64,
}

fn rows(table: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (index, line) in table.lines().enumerate() {
        let Some((mark, rest)) = line.split_at_checked(2) else { continue };
        if mark == "$ " {
            let (wanted, input) = (Vec::new(), String::new());
            rows.push(Row { line: index + 1, command: rest.to_owned(), input, wanted, exit: 0, since: 0 });
            continue;
        }
        let Some(row) = rows.last_mut() else { continue };
        match mark {
            "< " => row.input.extend([rest, "\n"]),
            "> " => row.wanted.push(rest.to_owned()),
            "! " => row.exit = rest.parse().unwrap(),
            "@ " => row.since = rest.parse().unwrap(),
            _ => {}
        }
    }
    rows
}

/// Whether the line contains the words of the pattern in their order.
fn matches(line: &str, pattern: &str) -> bool {
    let mut rest = line;
    pattern.split('*').all(|word| {
        // Columns are as wide as their content.
        let word = word.trim();
        let found = rest.find(word);
        rest = found.map_or("", |at| &rest[at + word.len()..]);
        found.is_some()
    })
}

/// Where commands run.
pub(crate) struct Shell<'a> {
    /// `sh`, or `bash`.
    pub(crate) program: &'a str,
    /// The home folder, whose programs come first on the `PATH`.
    pub(crate) home: &'a Path,
    /// The working folder.
    pub(crate) folder: &'a Path,
    /// The kubeconfig.
    pub(crate) kubeconfig: PathBuf,
    /// More environment.
    pub(crate) variables: Vec<(String, String)>,
}

impl Shell<'_> {
    /// The exit status, and all that was printed.
    pub(crate) fn run(&self, command: &str, input: &str) -> (i32, String) {
        let path = format!("{}:{}", self.home.display(), std::env::var("PATH").unwrap_or_default());
        let mut child = Command::new(self.program)
            .args(["-c", &format!("{{ {command}\n}} 2>&1")])
            .current_dir(self.folder)
            .env("PATH", path)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", self.home)
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Most commands read nothing and may be gone by now.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a table from top to bottom, and says what is not as it has it.
    pub(crate) fn judge(&self, table: &str, version: u64) -> Vec<String> {
        let mut wrong = Vec::new();
        for row in rows(table).into_iter().filter(|row| row.since <= version) {
            let (exit, text) = self.run(&row.command, &row.input);
            let missing: Vec<&String> =
                row.wanted.iter().filter(|wanted| !text.lines().any(|line| matches(line, wanted))).collect();
            let empty = row.wanted.iter().all(|wanted| wanted == "*");
            if exit != row.exit || !missing.is_empty() && !empty {
                wrong.push(format!(
                    "line {}: {}\n  ended with {exit}, wanted {}; missing {missing:?} in\n{text}",
                    row.line, row.command, row.exit
                ));
            }
        }
        wrong
    }
}
