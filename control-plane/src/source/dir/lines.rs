//! Where in a document a field stands, by its path: for messages, so a near miss is better than nothing.

pub struct Lines<'a> {
    rows: Vec<&'a str>,
}

impl<'a> Lines<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { rows: text.lines().collect() }
    }

    /// The line, from 1 on, of `spec.rules[2].action`, or of the last part of it that is found.
    pub fn of(&self, path: &str) -> Option<usize> {
        let mut found: Option<usize> = None;
        for part in path.split('.') {
            let (key, places) = part.split_once('[').map_or((part, ""), |(key, places)| (key, places));
            let start = found.unwrap_or(0);
            let Some(row) = (start..self.rows.len()).find(|row| self.has_key(*row, key, found.is_some())) else {
                break;
            };
            found = Some(row);
            for place in places.split('[').filter_map(|place| place.trim_end_matches(']').parse::<usize>().ok()) {
                found = found.map(|row| self.item(row, place).unwrap_or(row));
            }
        }
        found.map(|row| row + 1)
    }

    /// Comments are let be.
    fn has_key(&self, row: usize, key: &str, is_inside: bool) -> bool {
        let Some(text) = self.rows.get(row) else { return false };
        let text = text.split(" #").next().unwrap_or_default();
        let mut rest = text;
        while let Some(at) = rest.find(key) {
            let (before, after) = rest.split_at(at);
            let after = after.get(key.len()..).unwrap_or_default();
            let begins = before.ends_with([' ', '{', ',', '"', '\''])
                || before.is_empty() && (!is_inside || rest.len() < text.len() || at == 0);
            if begins && after.trim_start_matches(['"', '\'']).starts_with(':') {
                return true;
            }
            rest = after;
        }
        false
    }

    /// The row of a list's item, where each stands on its own.
    fn item(&self, row: usize, place: usize) -> Option<usize> {
        let indent = |row: usize| self.rows.get(row).map(|text| text.len() - text.trim_start().len());
        let is_item = |row: &usize| self.rows.get(*row).is_some_and(|text| text.trim_start().starts_with('-'));
        let first = (row + 1..self.rows.len()).find(|row| {
            self.rows.get(*row).is_some_and(|text| !text.trim().is_empty() && !text.trim_start().starts_with('#'))
        })?;
        if !is_item(&first) {
            return None;
        }
        let depth = indent(first);
        (first..self.rows.len())
            .take_while(|row| self.rows.get(*row).is_none_or(|text| text.trim().is_empty()) || indent(*row) >= depth)
            .filter(|row| is_item(row) && indent(*row) == depth)
            .nth(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_in_blocks_and_in_braces() {
        let text = "\
kind: X
spec:
  # rules: none
  targetRefs: [{kind: Namespace, name: shop}]
  defaults:
    head:
      rules:
      - name: one
        action: {never: {}}
      - name: two
        action:
          probability: \"7\"
    keep: [{name: slow, when: {latency: {threshold: 0s}}}]
";
        let lines = Lines::new(text);
        for (path, line) in [
            ("spec.targetRefs[0].name", Some(4)),
            ("spec.defaults.head.rules", Some(7)),
            ("spec.defaults.head.rules[0].action", Some(9)),
            ("spec.defaults.head.rules[1].action.probability", Some(12)),
            ("spec.defaults.head.rules[1].match", Some(10)),
            ("spec.defaults.keep[0].when.latency.threshold", Some(13)),
            ("status", None),
        ] {
            assert_eq!(lines.of(path), line, "{path}");
        }
    }
}
