//! What the standard variables of OpenTelemetry say of formats and of sampling, for a file that leaves them open.
//!
//! They are shared with the application and follow its specification ("Environment Variable Specification"): what is
//! invalid there is warned about and ignored, never refused.

use super::exporter::{Variables, is_open};
use super::tree::{FieldPath, Step, Tree};
use super::variables::{Origins, set};

/// Sets `policy.propagation` and `policy.sampling`, and returns the warnings.
pub fn fill(tree: &mut Tree, environment: &[(String, String)], origins: &mut Origins) -> Vec<String> {
    let mut found = Variables::new(environment);
    let parts: [(&str, &str, Part); 2] = [("propagation", PROPAGATORS, propagation), ("sampling", SAMPLER, sampling)];
    for (part, name, section) in parts {
        if is_open(tree, part)
            && let Some(section) = section(&mut found)
        {
            let path = FieldPath(vec![Step::Field("policy".into()), Step::Field(part.into())]);
            if set(tree, &path.0, section).is_ok() {
                origins.note(path, name);
            }
        }
    }
    found.warnings
}

type Part = fn(&mut Variables) -> Option<Tree>;

/// What an SDK reads and writes. Baggage passes as before where it is not named: a proxy that took it out would take what
/// is none of its own.
fn propagation(found: &mut Variables) -> Option<Tree> {
    let (name, text) = found.value(PROPAGATORS)?;
    let mut formats: Vec<&str> = Vec::new();
    for word in text.split(',').map(str::trim) {
        let format = match word {
            "tracecontext" => "w3c",
            "b3" | "b3multi" | "jaeger" | "xray" | "ottrace" => word,
            "baggage" | "none" | "" => continue,
            _ => {
                found.ignore(name, "`tracecontext`, `baggage`, `b3`, `b3multi`, `jaeger`, `xray`, `ottrace` or `none`");
                continue;
            }
        };
        if !formats.contains(&format) {
            formats.push(format);
        }
    }
    let is_none = text == "none";
    if formats.is_empty() && !is_none {
        return None;
    }
    let formats = Tree::List(formats.into_iter().map(Tree::text).collect());
    let mut section = vec![("extract".to_owned(), formats.clone()), ("inject".to_owned(), formats)];
    if is_none {
        // Whoever wants no propagation wants the headers left alone.
        section.push(("normalise".to_owned(), Tree::Bool(false)));
    }
    Some(Tree::Map(section))
}

fn sampling(found: &mut Variables) -> Option<Tree> {
    let (name, sampler) = found.value(SAMPLER)?;
    let (is_parent_based, rest) = match sampler.strip_prefix("parentbased_") {
        Some(rest) => (true, rest),
        None => (false, sampler),
    };
    let action = match rest {
        "always_on" => all(),
        "always_off" => none(),
        "traceidratio" => ratio(found),
        _ => {
            let others = "`always_on`, `always_off`, `traceidratio`, or one of them behind `parentbased_`";
            found.ignore(name, others);
            return None;
        }
    };
    let parent = if is_parent_based { "Respect" } else { "Ignore" };
    let rule = Tree::Map(vec![("action".to_owned(), Tree::Map(vec![action]))]);
    let head = Tree::Map(vec![("rules".to_owned(), Tree::List(vec![rule]))]);
    Some(Tree::Map(vec![("parent".to_owned(), Tree::text(parent)), ("head".to_owned(), head)]))
}

/// All without an argument, as the specification says, and none for 0, which is no probability of ours.
fn ratio(found: &mut Variables) -> (String, Tree) {
    let Some((name, text)) = found.value(ARGUMENT) else { return all() };
    match text.parse::<f64>() {
        Ok(0.0) => none(),
        Ok(1.0) => all(),
        Ok(part) if (LEAST..1.0).contains(&part) => ("probability".to_owned(), Tree::Text(part.to_string())),
        _ => {
            found.ignore(name, "a number from 0 to 1");
            all()
        }
    }
}

fn all() -> (String, Tree) {
    ("always".into(), Tree::Map(Vec::new()))
}

fn none() -> (String, Tree) {
    ("never".into(), Tree::Map(Vec::new()))
}

const PROPAGATORS: &str = "OTEL_PROPAGATORS";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
/// A threshold of 56 bits can say no less.
const LEAST: f64 = 1.0 / (1_u64 << 56) as f64;

#[cfg(test)]
mod tests {
    use super::super::exporter::tests::read;
    use super::super::{Format, ParentDecision, SamplingAction};
    use super::*;

    #[test]
    fn propagators_are_formats() {
        let usual = read("", &[]).policy.propagation;
        for (text, formats) in [
            ("tracecontext,baggage", vec![Format::W3c]),
            (" b3 , tracecontext,b3", vec![Format::B3, Format::W3c]),
            ("xray,ottrace,jaeger,b3multi", vec![Format::Xray, Format::Ottrace, Format::Jaeger, Format::B3Multi]),
        ] {
            let config = read("", &[(PROPAGATORS, text)]);
            assert_eq!(config.warnings, Vec::<String>::new());
            let propagation = config.policy.propagation;
            assert_eq!((&propagation.extract, &propagation.inject), (&formats, &formats), "{text}");
            assert!(propagation.baggage && propagation.normalise);
        }
        let none = read("", &[(PROPAGATORS, "none")]).policy.propagation;
        assert!(none.extract.is_empty() && none.inject.is_empty() && !none.normalise);
        let partly = read("", &[(PROPAGATORS, "b3,carrier-pigeon")]);
        assert_eq!((partly.warnings.len(), partly.policy.propagation.extract), (1, vec![Format::B3]));
        for text in ["", "baggage"] {
            assert_eq!(read("", &[(PROPAGATORS, text)]).policy.propagation, usual);
        }
        let file = read("policy: {propagation: {baggage: false}}", &[(PROPAGATORS, "b3")]).policy.propagation;
        assert_eq!((file.extract, file.baggage), (usual.extract, false), "the file wins");
    }

    #[test]
    fn samplers_are_rules() {
        use ParentDecision::{Ignore, Respect};
        for (sampler, argument, parent, action) in [
            ("always_on", "", Ignore, SamplingAction::Always),
            ("always_off", "", Ignore, SamplingAction::Never),
            ("traceidratio", "0.25", Ignore, SamplingAction::Probability(0.25)),
            ("traceidratio", "", Ignore, SamplingAction::Always),
            ("traceidratio", "0", Ignore, SamplingAction::Never),
            ("parentbased_always_on", "0.5", Respect, SamplingAction::Always),
            ("parentbased_always_off", "", Respect, SamplingAction::Never),
            ("parentbased_traceidratio", "1e-3", Respect, SamplingAction::Probability(0.001)),
        ] {
            let config = read("", &[(SAMPLER, sampler), (ARGUMENT, argument)]);
            assert_eq!(config.warnings, Vec::<String>::new(), "{sampler}");
            let sampling = config.policy.sampling;
            assert_eq!((sampling.parent, sampling.head.rules[0].action), (parent, action), "{sampler} {argument}");
        }
        let usual = read("", &[]).policy.sampling;
        for (sampler, argument) in [("jaeger_remote", ""), ("parentbased_xray", ""), ("sometimes", "")] {
            let config = read("", &[(SAMPLER, sampler), (ARGUMENT, argument)]);
            assert_eq!((config.warnings.len(), config.policy.sampling), (1, usual.clone()), "{sampler}");
        }
        for argument in ["2", "-1", "NaN", "all", "1e-40"] {
            let config = read("", &[(SAMPLER, "traceidratio"), (ARGUMENT, argument)]);
            assert_eq!(config.warnings.len(), 1, "{argument}");
            assert_eq!(config.policy.sampling.head.rules[0].action, SamplingAction::Always);
        }
        let file = read("policy: {sampling: {parent: Respect}}", &[(SAMPLER, "always_off")]).policy.sampling;
        assert_eq!(file, usual, "the file wins");
    }
}
