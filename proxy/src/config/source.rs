//! Where a configuration was read from, so that it can be read again, and what of a newer one a running proxy takes.

use std::path::{Path, PathBuf};

use super::{Config, Problem, parse, read, whole_file};

/// A file and the environment that is laid over it.
#[derive(Clone, Debug)]
pub struct Source {
    file: PathBuf,
    environment: Vec<(String, String)>,
}

/// A running configuration with what is new and can be taken without a restart.
#[derive(Debug)]
pub struct Adopted {
    pub config: Config,
    /// Whether there was anything to take.
    pub changed: bool,
    /// Sections that say something else now, which holds from the next start on.
    pub left: Vec<&'static str>,
}

impl Source {
    pub fn new(file: &Path, environment: impl Iterator<Item = (String, String)>) -> Self {
        Self { file: file.to_owned(), environment: environment.collect() }
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    pub fn load(&self) -> Result<Config, Vec<Problem>> {
        self.parse(&self.read()?)
    }

    pub fn read(&self) -> Result<String, Vec<Problem>> {
        read(&self.file).map_err(|(wrong, right)| vec![whole_file(&self.name(), wrong, right)])
    }

    pub fn parse(&self, text: &str) -> Result<Config, Vec<Problem>> {
        parse(text, &self.name(), self.environment.iter().cloned())
    }

    fn name(&self) -> String {
        self.file.display().to_string()
    }
}

impl Config {
    /// Takes what is about traces, except where they go: it needs no socket, no thread and no connection.
    pub fn adopt(&self, newer: &Config) -> Adopted {
        let mut config = self.clone();
        config.policy.propagation.clone_from(&newer.policy.propagation);
        config.policy.untraced.clone_from(&newer.policy.untraced);
        config.policy.sampling.clone_from(&newer.policy.sampling);
        for listener in &mut config.listeners {
            if let Some(newer) = newer.listeners.iter().find(|newer| newer.name == listener.name) {
                listener.propagation.clone_from(&newer.propagation);
            }
        }
        let differs = [
            ("role", config.role != newer.role),
            ("node", config.node != newer.node),
            ("workers", config.workers != newer.workers),
            ("admin", config.admin != newer.admin),
            ("status", config.status != newer.status),
            ("listeners", config.listeners != newer.listeners),
            ("upstreams", config.upstreams != newer.upstreams),
            ("limits", config.limits != newer.limits),
            ("drain", config.drain != newer.drain),
            ("handover", config.handover != newer.handover),
            ("telemetry", config.telemetry != newer.telemetry),
            ("policy.destinations", config.policy.destinations != newer.policy.destinations),
        ];
        let left = differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect();
        Adopted { changed: config != *self, config, left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(rest: &str) -> Config {
        let listeners = "listeners:\n- {name: in, mode: inbound, address: '127.0.0.1:1', upstream: app}\n";
        let text = format!(
            "version: 1\nrole: standalone\n{listeners}upstreams:\n- {{name: app, addresses: ['127.0.0.1:9']}}\n{rest}"
        );
        parse(&text, "test.yaml", std::iter::empty()).unwrap()
    }

    #[test]
    fn what_is_about_traces_is_taken_and_the_rest_is_named() {
        let running = config("");
        let same = running.adopt(&config(""));
        assert!(!same.changed && same.left.is_empty());

        let policy =
            "policy: {untraced: [], propagation: {inject: [b3]}, sampling: {head: {rules: [{action: {never: {}}}]}}}\n";
        let adopted = running.adopt(&config(policy));
        assert!(adopted.changed && adopted.left.is_empty());
        assert_eq!(adopted.config, config(policy));

        let more = "limits: {streams: 7}\npolicy: {untraced: [], destinations: [{name: a, stdout: {}}]}\n";
        let adopted = running.adopt(&config(more));
        assert!(adopted.changed);
        assert_eq!(adopted.left, ["limits", "policy.destinations"]);
        assert_eq!(adopted.config.limits, running.limits);
        assert!(adopted.config.policy.destinations.is_empty() && adopted.config.policy.untraced.is_empty());
    }
}
