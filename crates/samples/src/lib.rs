//! The built-in sample applications.

/// Why an application did not run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// There is no application of that name.
    #[error("unknown application {0:?}")]
    Unknown(String),
}

/// Runs an application until it is told to stop.
///
/// # Errors
/// When there is none of that name, or its port cannot be bound.
pub fn run(name: &str, _version: &str, _args: &[String]) -> Result<(), AppError> {
    Err(AppError::Unknown(name.to_owned()))
}
