//! A strict reader of OpenMetrics text for the tests: everything the specification says MUST, of the parts that we write.

use std::collections::HashSet;

#[derive(Debug, Clone)]
pub struct Sample {
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

pub fn parse(text: &str) -> Result<Vec<Sample>, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("must end with # EOF and a line feed")?;
    let mut families = HashSet::new();
    let mut series = HashSet::new();
    let mut samples = Vec::new();
    let mut family: Option<Family> = None;
    for line in body.lines() {
        if let Some(metadata) = line.strip_prefix("# ") {
            let mut words = metadata.splitn(3, ' ');
            let (word, name, rest) = (words.next(), words.next().ok_or(line)?, words.next().ok_or(line)?);
            if word == Some("TYPE") {
                finish(family.take())?;
                if !families.insert(name.to_owned()) {
                    return Err(format!("{name} comes twice, or not in one piece"));
                }
                family = Some(Family { name: name.into(), kind: rest.into(), ..Family::default() });
                continue;
            }
            let family =
                family.as_mut().filter(|family| family.name == name).ok_or(format!("{line}: of another family"))?;
            if !family.samples.is_empty() {
                return Err(format!("{line}: after its samples"));
            }
            match word {
                Some("UNIT") if name.ends_with(&format!("_{rest}")) => {}
                Some("HELP") if !rest.is_empty() => {}
                _ => return Err(format!("{line}: no such metadata")),
            }
            continue;
        }
        let sample = sample(line)?;
        let family = family.as_mut().ok_or(format!("{line}: before its TYPE"))?;
        let suffix = sample.name.strip_prefix(&family.name).ok_or(format!("{line}: of another family"))?;
        let allowed: &[&str] = match &*family.kind {
            "counter" => &["_total"],
            "gauge" => &[""],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_count", "_sum"],
            other => return Err(format!("no such type: {other}")),
        };
        if !allowed.contains(&suffix) {
            return Err(format!("{line}: a {} has no {suffix}", family.kind));
        }
        if family.kind != "gauge" && !(sample.value >= 0.0 && sample.value.is_finite()) {
            return Err(format!("{line}: must not be negative"));
        }
        if family.kind == "info" && sample.value != 1.0 {
            return Err(format!("{line}: an info is 1"));
        }
        if !series.insert(format!("{}{:?}", sample.name, sample.labels)) {
            return Err(format!("{line}: comes twice"));
        }
        family.samples.push(sample.clone());
        samples.push(sample);
    }
    finish(family)?;
    Ok(samples)
}

#[derive(Default)]
struct Family {
    name: String,
    kind: String,
    samples: Vec<Sample>,
}

/// Buckets of one series stand together, rise, end with +Inf, and that is the count.
fn finish(family: Option<Family>) -> Result<(), String> {
    let Some(family) = family.filter(|family| family.kind == "histogram") else { return Ok(()) };
    let (mut bound, mut count, mut complete) = (f64::NEG_INFINITY, 0.0, false);
    let mut own = Vec::new();
    for sample in &family.samples {
        let mut labels = sample.labels.clone();
        let le = labels.iter().position(|(name, _)| name == "le").map(|at| labels.remove(at).1);
        match (sample.name.rsplit('_').next(), le) {
            (Some("bucket"), Some(le)) => {
                if complete || labels != own {
                    (bound, count, own) = (f64::NEG_INFINITY, 0.0, labels);
                }
                if le != "+Inf" && !le.contains('.') {
                    return Err(format!("le=\"{le}\" is not written as a float"));
                }
                let next = if le == "+Inf" { f64::INFINITY } else { le.parse().map_err(|_| le.clone())? };
                if next <= bound || sample.value < count {
                    return Err(format!("{}: buckets must rise", family.name));
                }
                (bound, count, complete) = (next, sample.value, next == f64::INFINITY);
            }
            (Some("count"), None) if complete && labels == own && sample.value == count => {}
            (Some("sum"), None) if complete && labels == own => {}
            _ => return Err(format!("{}: {sample:?}", family.name)),
        }
    }
    Ok(())
}

fn sample(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or(line)?;
    let (name, mut rest) = line.split_at(end);
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(format!("{line}: the name"));
    }
    let mut labels: Vec<(String, String)> = Vec::new();
    while let Some(list) = rest.strip_prefix(['{', ',']) {
        let (label, value) = list.split_once("=\"").ok_or(format!("{line}: a label"))?;
        if labels.iter().any(|(other, _)| other == label) || !label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        {
            return Err(format!("{line}: the label {label}"));
        }
        let (value, after) = quoted(value).ok_or(format!("{line}: a label's value"))?;
        labels.push((label.into(), value));
        rest = after;
    }
    if !labels.is_empty() {
        rest = rest.strip_prefix('}').ok_or(format!("{line}: braces"))?;
    }
    let rest = match rest.split_once(" # ") {
        Some((value, example)) if name.ends_with("_bucket") => {
            self::example(example).ok_or(format!("{line}: the exemplar"))?;
            value
        }
        _ => rest,
    };
    let value = rest.strip_prefix(' ').filter(|value| !value.contains(' ')).ok_or(format!("{line}: spaces"))?;
    Ok(Sample { name: name.into(), labels, value: value.parse().map_err(|_| format!("{line}: the value"))? })
}

/// One label, a value and a time.
fn example(text: &str) -> Option<()> {
    let (id, rest) = text.strip_prefix("{trace_id=\"")?.split_once("\"} ")?;
    let (value, time) = rest.split_once(' ')?;
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let numbers = [value, time].iter().all(|number| number.parse::<f64>().is_ok_and(|number| number >= 0.0));
    (is_id && numbers).then_some(())
}

fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                plain @ ('"' | '\\') => plain,
                _ => return None,
            }),
            char => value.push(char),
        }
    }
    None
}

#[test]
fn what_is_wrong_is_refused() {
    let wrong = [
        "",
        "# EOF",
        "a 1\n# EOF\n",
        "# TYPE a counter\na 1\n# EOF\n",
        "# TYPE a counter\na_total -1\n# EOF\n",
        "# TYPE a counter\na_total 1\na_total 1\n# EOF\n",
        "# TYPE a gauge\n# TYPE b gauge\n# TYPE a gauge\n# EOF\n",
        "# TYPE a gauge\n# UNIT a seconds\n# EOF\n",
        "# TYPE a gauge\na{b=\"\\x\"} 1\n# EOF\n",
        "# TYPE a gauge\na  1\n# EOF\n",
        "# TYPE a gauge\na 1 # {trace_id=\"00000000000000000000000000000001\"} 1 1\n# EOF\n",
        "# TYPE a histogram\na_bucket{le=\"1.0\"} 1\na_count 1\n# EOF\n",
        "# TYPE a histogram\na_bucket{le=\"1.0\"} 2\na_bucket{le=\"+Inf\"} 1\n# EOF\n",
        "# TYPE a histogram\na_bucket{le=\"+Inf\"} 1\na_count 2\n# EOF\n",
    ];
    for text in wrong {
        assert!(parse(text).is_err(), "{text}");
    }
}
