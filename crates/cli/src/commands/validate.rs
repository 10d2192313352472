//! `lateen validate`: what is wrong with manifests, without a cluster.

mod kubernetes;

use std::path::PathBuf;
use std::process::ExitCode;

use lateen_api::{Document, FieldError, ObjectError, Severity, parse_yaml, validate};
use serde::Serialize;

use super::{CliError, Outcome};
use crate::globals::Globals;
use crate::{manifest, table};

/// Arguments of `lateen validate`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    /// Files, folders of YAML and JSON files, or `-` for standard input (can be given several times)
    #[arg(short, long = "filename", value_name = "FILE", num_args = 1.., value_delimiter = ',')]
    filename: Vec<PathBuf>,
    /// More files
    #[arg(value_name = "FILE")]
    more: Vec<PathBuf>,
    /// Output format: table, json or yaml
    #[arg(short, long, default_value = "table")]
    output: String,
}

/// What is said of one object.
#[derive(Debug, Serialize)]
struct Verdict {
    file: String,
    line: usize,
    resource: String,
    valid: bool,
    errors: Vec<FieldError>,
    warnings: Vec<FieldError>,
}

impl Cmd {
    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        let paths: Vec<PathBuf> = self.filename.into_iter().chain(self.more).collect();
        if paths.is_empty() {
            return Err(CliError::new("which files? give them with -f, or - for standard input"));
        }
        if !["table", "json", "yaml"].contains(&self.output.as_str()) {
            return Err(CliError(format!("unknown output format {:?}: table, json or yaml", self.output)));
        }
        let mut verdicts = Vec::new();
        for (file, text) in once(manifest::texts_of(&paths)?) {
            verdicts
                .extend(parse_yaml(&file, &text).into_iter().map(|document| judge(&file, document, globals)));
        }
        match self.output.as_str() {
            "json" => println!("{}", serde_json::to_string_pretty(&verdicts).map_err(CliError::new)?),
            "yaml" => print!("{}", serde_saphyr::to_string(&verdicts).map_err(CliError::new)?),
            _ => print_table(&verdicts),
        }
        let valid = verdicts.iter().all(|verdict| verdict.valid);
        Ok(if valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// A file that was named twice, or with its folder, is judged once.
fn once(files: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut seen = std::collections::BTreeSet::new();
    files
        .into_iter()
        .filter(|(file, _)| {
            let same = std::fs::canonicalize(file).unwrap_or_else(|_| file.into());
            seen.insert(same)
        })
        .collect()
}

fn judge(file: &str, document: Result<Document, ObjectError>, globals: &Globals) -> Verdict {
    let file = file.to_owned();
    match document {
        Err(error) => Verdict {
            file,
            line: error.origin.map_or(0, |origin| origin.line),
            resource: error.object.map(|object| object.to_string()).unwrap_or_default(),
            valid: false,
            errors: error.errors,
            warnings: Vec::new(),
        },
        Ok(Document::Istio(object)) => {
            let (errors, warnings): (Vec<_>, Vec<_>) =
                validate(&object).into_iter().partition(|problem| problem.severity == Severity::Error);
            let plain = |problems: Vec<lateen_api::Problem>| {
                problems
                    .into_iter()
                    .map(|p| FieldError { path: p.path, message: p.message })
                    .collect::<Vec<_>>()
            };
            let (errors, warnings) = (plain(errors), plain(warnings));
            let line = object.origin.as_ref().map_or(0, |origin| origin.line);
            Verdict {
                file,
                line,
                resource: object.reference().to_string(),
                valid: errors.is_empty(),
                errors,
                warnings,
            }
        }
        Ok(Document::Other { value, origin }) => {
            let resource =
                lateen_api::reference_of(&value).map(|object| object.to_string()).unwrap_or_default();
            let (errors, warnings) = kubernetes::check(&value, &globals.istio_namespace);
            Verdict { file, line: origin.line, resource, valid: errors.is_empty(), errors, warnings }
        }
    }
}

fn print_table(verdicts: &[Verdict]) {
    let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
    let mut rows = vec![row(["FILE", "RESOURCE", "STATUS", "MESSAGE"])];
    for verdict in verdicts {
        let place = format!("{}:{}", verdict.file, verdict.line);
        let resource = verdict.resource.as_str();
        if verdict.errors.is_empty() && verdict.warnings.is_empty() {
            rows.push(row([&place, resource, "valid", ""]));
        }
        for (status, list) in [("error", &verdict.errors), ("warning", &verdict.warnings)] {
            rows.extend(list.iter().map(|problem| row([&place, resource, status, &problem.to_string()])));
        }
    }
    let text = table::columns(&rows);
    text.lines().for_each(|line| println!("{}", line.trim_end()));
    let wrong = verdicts.iter().filter(|verdict| !verdict.valid).count();
    eprintln!("{} objects, {wrong} invalid", verdicts.len());
}
