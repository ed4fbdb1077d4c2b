//! How a command ends when it does not end well: what is said, and which exit code it has.

use std::fmt;
use std::io;
use std::process::ExitCode;

use lexopt::Parser;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// It was asked in a way that it does not understand.
    Usage { command: Option<&'static str>, text: String },
    /// It could not.
    Failed(String),
    /// It looked, and what it looked at is not as it should be. What was wrong stands on standard output.
    Wanting(String),
    /// Nobody reads its output any more. Whoever closes a pipe has seen enough, so this is no error.
    Unheard,
}

impl Failure {
    pub fn failed(text: impl fmt::Display) -> Self {
        Self::Failed(text.to_string())
    }

    pub fn usage(command: &'static str, text: impl fmt::Display) -> Self {
        Self::Usage { command: Some(command), text: text.to_string() }
    }

    /// The value of an option that takes one of several words.
    pub fn word<T>(
        command: &'static str,
        parser: &mut Parser,
        option: &str,
        parse: fn(&str) -> Option<T>,
        words: &[&str],
    ) -> Result<T, Self> {
        let value = parser.value().map_err(|error| Self::usage(command, error))?;
        let text = value.to_string_lossy();
        let right = words.join(", ");
        parse(&text).ok_or_else(|| Self::usage(command, format!("{option} takes one of {right}, not `{text}`")))
    }

    pub fn text(&self) -> Option<String> {
        match self {
            Self::Usage { command: Some(command), text } => Some(format!("{text}\nTry `spanmesh {command} --help`.")),
            Self::Usage { command: None, text } => Some(format!("{text}\nTry `spanmesh --help`.")),
            Self::Failed(text) | Self::Wanting(text) => Some(text.clone()),
            Self::Unheard => None,
        }
    }

    pub fn code(&self) -> ExitCode {
        match self {
            Self::Unheard => ExitCode::SUCCESS,
            Self::Failed(_) => ExitCode::FAILURE,
            Self::Usage { .. } => ExitCode::from(2),
            Self::Wanting(_) => ExitCode::from(3),
        }
    }
}

/// Errors of writing to standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unheard,
            _ => Self::Failed(format!("cannot write to standard output: {error}")),
        }
    }
}
