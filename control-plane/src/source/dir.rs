//! A folder of YAML as the source: every `.yaml`, `.yml` and `.json` in it, not below it. A change holds as soon as it is
//! written, also one that comes by turning a symlink, as Kubernetes does with mounted ConfigMaps. A document that is wrong
//! is refused by name and line, and what it said before goes on.

mod lines;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch::Sender;

use super::document::{self, Document, Identity, Spec};
use super::{Reading, Verdict};
use crate::cluster::{Cluster, Meta};

pub use lines::Lines;

/// Reads the folder, and goes on until dropped: each change of it is sent.
pub async fn follow(path: PathBuf, sender: Sender<Reading>) -> io::Result<()> {
    let mut changes = watch::Changes::new(&path)?;
    let mut folder = Folder::default();
    loop {
        let Some(mut files) = look(&path).await else { return Ok(()) };
        // Whoever writes may be in the middle of it.
        while folder.is_news(&files) {
            tokio::time::sleep(SETTLE).await;
            let Some(again) = look(&path).await else { return Ok(()) };
            if again == files {
                break;
            }
            files = again;
        }
        if let Some(reading) = folder.update(files) {
            sender.send_replace(reading);
        }
        changes.next().await;
    }
}

/// Nothing while the program ends.
async fn look(path: &Path) -> Option<Files> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || read(&path)).await.ok()
}

/// Files by name, each with its text or why it has none.
pub type Files = BTreeMap<String, Result<String, String>>;

/// What one look at the folder finds. It blocks.
pub fn read(path: &Path) -> Files {
    let mut files = Files::new();
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            files.insert(String::new(), Err(format!("the folder {} cannot be read: {error}", path.display())));
            return files;
        }
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_ours = [".yaml", ".yml", ".json"].iter().any(|ending| name.ends_with(ending)) && !name.starts_with('.');
        if !is_ours {
            continue;
        }
        if files.len() >= FILES {
            files.insert(String::new(), Err(format!("there are more than {FILES} files; the others are not read")));
            break;
        }
        let text = text(&entry.path());
        files.insert(name, text);
    }
    files
}

/// The text of one file, unless it is larger than a resource may be.
pub fn text(path: &Path) -> Result<String, String> {
    bounded(File::open(path))
}

pub fn bounded(reader: io::Result<impl Read>) -> Result<String, String> {
    let mut text = String::new();
    match reader.and_then(|reader| reader.take(LARGEST + 1).read_to_string(&mut text)) {
        Ok(_) if text.len() as u64 > LARGEST => Err(format!("is larger than {LARGEST} bytes; split it")),
        Ok(_) => Ok(text),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

/// What the folder held.
#[derive(Default)]
pub struct Folder {
    files: Files,
    parsed: HashMap<String, Vec<Document>>,
    known: HashMap<Identity, Known>,
    is_read: bool,
}

#[derive(Clone)]
struct Known {
    file: String,
    created: i64,
    generation: u64,
    spec: Spec,
}

impl Folder {
    pub fn is_news(&self, files: &Files) -> bool {
        !self.is_read || *files != self.files
    }

    /// Nothing if it is as it was.
    pub fn update(&mut self, files: Files) -> Option<Reading> {
        if !self.is_news(&files) {
            return None;
        }
        self.is_read = true;
        for (name, text) in &files {
            if self.files.get(name) != Some(text) {
                self.parsed.insert(name.clone(), text.as_deref().map(document::read).unwrap_or_default());
            }
        }
        self.parsed.retain(|name, _| files.contains_key(name));
        self.files = files;
        Some(self.settle())
    }

    /// The line of a field of the document that a verdict has this place for.
    pub fn line(&self, place: &str, field: &str) -> Option<usize> {
        let (file, first) = place.rsplit_once(':')?;
        let before = first.parse::<usize>().ok()?.checked_sub(1)?;
        let text = self.files.get(file)?.as_ref().ok()?;
        let rows: Vec<_> = text.lines().skip(before).take_while(|row| row.trim_end() != "---").collect();
        Some(before + Lines::new(&rows.join("\n")).of(field)?)
    }

    fn settle(&mut self) -> Reading {
        let mut known: HashMap<Identity, Known> = HashMap::new();
        let mut verdicts = Vec::new();
        for (file, text) in &self.files {
            if let Err(problem) = text {
                let kept = self.keep_file(file, &mut known);
                verdicts.push(Verdict { problems: vec![problem.clone()], ..refusal(file, None, kept) });
                continue;
            }
            for document in self.parsed.get(file).into_iter().flatten() {
                let identity = &document.identity;
                let outcome = match &document.spec {
                    None => continue,
                    Some(outcome) => outcome,
                };
                let twice = known.get(identity).filter(|_| !identity.name.is_empty());
                match (outcome, twice) {
                    (Ok(_), Some(first)) => {
                        let problem = format!("is in {} too, and that one counts; remove one of the two", first.file);
                        verdicts.push(Verdict { problems: vec![problem], ..refusal(file, Some(document), false) });
                    }
                    (Ok(spec), None) => {
                        let before = self.known.get(identity);
                        let generation = match before {
                            Some(before) if before.spec == *spec => before.generation,
                            Some(before) => before.generation + 1,
                            None => 1,
                        };
                        let (file, created) = (file.clone(), document.created);
                        verdicts.push(Verdict { accepted: true, generation, ..refusal(&file, Some(document), false) });
                        known.insert(identity.clone(), Known { file, created, generation, spec: spec.clone() });
                    }
                    (Err(problems), first) => {
                        let kept = match (identity.name.is_empty(), first) {
                            (true, _) => self.keep_file(file, &mut known),
                            (false, Some(_)) => false,
                            (false, None) => self.keep(identity, &mut known),
                        };
                        verdicts.push(Verdict { problems: problems.clone(), ..refusal(file, Some(document), kept) });
                    }
                }
            }
        }
        self.known = known;
        Reading { cluster: Arc::new(self.cluster()), verdicts: Arc::new(verdicts) }
    }

    /// What the file held before and is nowhere else.
    fn keep_file(&self, file: &str, known: &mut HashMap<Identity, Known>) -> bool {
        let mut kept = false;
        for (identity, before) in self.known.iter().filter(|(_, before)| before.file == file || file.is_empty()) {
            if !known.contains_key(identity) {
                known.insert(identity.clone(), before.clone());
                kept = true;
            }
        }
        kept
    }

    fn keep(&self, identity: &Identity, known: &mut HashMap<Identity, Known>) -> bool {
        match self.known.get(identity) {
            Some(before) => known.insert(identity.clone(), before.clone()).is_none(),
            None => false,
        }
    }

    fn cluster(&self) -> Cluster {
        let mut cluster = Cluster::default();
        for (identity, known) in &self.known {
            let Identity { namespace, name, .. } = identity.clone();
            let meta = Meta { created: known.created, namespace, name, generation: known.generation };
            cluster.add(meta, known.spec.clone());
        }
        cluster.sort();
        cluster
    }
}

fn refusal(file: &str, document: Option<&Document>, before: bool) -> Verdict {
    let identity = document.map(|document| document.identity.clone()).unwrap_or_default();
    let place = match document {
        Some(document) => format!("{file}:{}", document.line),
        None => file.to_owned(),
    };
    Verdict {
        kind: identity.kind,
        namespace: identity.namespace,
        name: identity.name,
        generation: 0,
        place,
        accepted: false,
        problems: Vec::new(),
        before,
    }
}

const SETTLE: Duration = Duration::from_millis(10);
/// More is no folder that a person keeps.
const FILES: usize = 10_000;
/// Kubernetes' objects are no larger.
const LARGEST: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, rate: &str) -> String {
        format!(
            "apiVersion: spanmesh.io/v1alpha1\nkind: SamplingPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  targetRefs: [{{kind: Namespace, name: shop}}]\n  defaults:\n    head:\n      rules:\n      - {{name: all, action: {{probability: {rate}}}}}\n"
        )
    }

    fn files(list: &[(&str, String)]) -> Files {
        list.iter().map(|(name, text)| ((*name).to_owned(), Ok(text.clone()))).collect()
    }

    fn names(reading: &Reading) -> Vec<(String, u64)> {
        reading.cluster.sampling.iter().map(|policy| (policy.meta.name.clone(), policy.meta.generation)).collect()
    }

    #[test]
    fn generations_grow_with_changes_and_only_with_those() {
        let mut folder = Folder::default();
        let first =
            folder.update(files(&[("a.yaml", policy("a", "\"0.1\"")), ("b.yaml", policy("b", "\"0.1\""))])).unwrap();
        assert_eq!(names(&first), [("a".into(), 1), ("b".into(), 1)]);
        assert!(folder.update(folder.files.clone()).is_none());
        let comment = format!("# said anew\n{}", policy("a", "\"0.1\""));
        let next = folder.update(files(&[("a.yaml", comment), ("b.yaml", policy("b", "\"0.2\""))])).unwrap();
        assert_eq!(names(&next), [("a".into(), 1), ("b".into(), 2)]);
        let last = folder.update(files(&[("b.yaml", policy("b", "\"0.2\""))])).unwrap();
        assert_eq!(names(&last), [("b".into(), 2)]);
    }

    #[test]
    fn a_bad_document_is_refused_by_line_and_what_was_there_before_goes_on() {
        let mut folder = Folder::default();
        let good = format!("{}---\n{}", policy("a", "\"0.1\""), policy("b", "\"0.1\""));
        folder.update(files(&[("all.yaml", good)])).unwrap();
        let bad = format!("{}---\n{}", policy("a", "\"0.5\""), policy("b", "\"7\""));
        let reading = folder.update(files(&[("all.yaml", bad)])).unwrap();
        assert_eq!(names(&reading), [("a".into(), 2), ("b".into(), 1)]);
        let refused: Vec<_> = reading.verdicts.iter().filter(|verdict| !verdict.accepted).collect();
        assert_eq!((refused.len(), refused[0].name.as_str(), refused[0].before), (1, "b", true));
        assert!(
            refused[0].problems[0].starts_with("line 19: spec.defaults.head.rules[0]"),
            "{:?}",
            refused[0].problems
        );
        // No YAML at all, so nobody knows which resource it was.
        let reading = folder.update(files(&[("all.yaml", "spec: [\n".into())])).unwrap();
        assert_eq!(names(&reading), [("a".into(), 2), ("b".into(), 1)]);
        assert!(reading.verdicts[0].before);
        // Nobody remembers what a control plane before this one has read.
        let fresh = Folder::default().update(files(&[("b.yaml", policy("b", "\"7\""))])).unwrap();
        assert!(fresh.cluster.sampling.is_empty() && !fresh.verdicts[0].before);
    }

    #[test]
    fn the_same_name_counts_once() {
        let reading = Folder::default()
            .update(files(&[("a.yaml", policy("x", "\"0.1\"")), ("b.yaml", policy("x", "\"0.2\""))]))
            .unwrap();
        assert_eq!(names(&reading).len(), 1);
        assert!(reading.verdicts[1].problems[0].contains("is in a.yaml too"));
    }

    #[test]
    fn what_is_not_ours_is_let_be() {
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: x}\n".to_owned();
        let reading = Folder::default().update(files(&[("a.yaml", text)])).unwrap();
        assert!(reading.verdicts.is_empty());
    }
}
