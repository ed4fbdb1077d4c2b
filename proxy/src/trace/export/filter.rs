//! Which spans a destination is given. What the resource says is the same for all spans of a process and decided at its
//! start; attributes are asked of each span, by putting them into words once more.

use std::borrow::Cow;
use std::net::IpAddr;

use super::json::Resource;
use crate::config::{Only, OnlyAttribute};
use crate::trace::attributes::{Fields, Told};

pub struct Filter {
    /// The resource fits.
    open: bool,
    attributes: Vec<OnlyAttribute>,
}

impl Filter {
    pub fn new(only: &Only, resource: &Resource) -> Self {
        let says = |key: &str| resource.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str());
        let fits = |key, list: &[String]| {
            list.is_empty() || says(key).is_some_and(|value| list.iter().any(|item| item == value))
        };
        let mut open = fits("service.namespace", &only.namespaces) && fits("service.name", &only.services);
        let mut attributes = only.attributes.clone();
        attributes.retain(|wanted| match says(&wanted.key) {
            Some(value) => {
                open &= takes(wanted, value);
                false
            }
            None => true,
        });
        Self { open, attributes }
    }

    /// Nobody has to be asked.
    pub fn takes_all(&self) -> bool {
        self.open && self.attributes.is_empty()
    }

    pub fn takes(&self, told: &Told<'_>) -> bool {
        if !self.open || self.attributes.is_empty() {
            return self.open;
        }
        let mut asked = Asked { wanted: &self.attributes, met: vec![false; self.attributes.len()] };
        told.describe(&mut asked);
        asked.met.iter().all(|met| *met)
    }
}

fn takes(wanted: &OnlyAttribute, value: &str) -> bool {
    wanted.values.is_empty() || wanted.values.iter().any(|item| item == value)
}

struct Asked<'a> {
    wanted: &'a [OnlyAttribute],
    met: Vec<bool>,
}

impl Fields for Asked<'_> {
    fn custom(&mut self, key: &str, value: &str) {
        for (wanted, met) in self.wanted.iter().zip(&mut self.met) {
            *met |= wanted.key == key && takes(wanted, value);
        }
    }

    /// One of its values is enough.
    fn list(&mut self, key: &str, values: &[Cow<'_, str>]) {
        values.iter().for_each(|value| self.custom(key, value));
    }

    fn text(&mut self, key: &'static str, value: &str) {
        self.custom(key, value);
    }

    fn int(&mut self, key: &'static str, value: i64) {
        if self.wanted.iter().any(|wanted| wanted.key == key) {
            self.custom(key, &value.to_string());
        }
    }

    fn address(&mut self, key: &'static str, value: IpAddr) {
        if self.wanted.iter().any(|wanted| wanted.key == key) {
            self.custom(key, &value.to_string());
        }
    }
}
