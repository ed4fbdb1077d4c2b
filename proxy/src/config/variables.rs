//! Lays the environment over the file: `SPANMESH_NODE__SERVICE_VERSION` is the field `node.serviceVersion`.
//!
//! The names come from the tables of `schema`. What the standard variables of OpenTelemetry say is `otel`'s.

use super::problem::{Place, Problem, nearest};
use super::schema::{Kind, Table};
use super::tree::{FieldPath, Step, Tree};
use super::yaml;

/// Which variable set which field.
#[derive(Default)]
pub struct Origins(Vec<(FieldPath, String)>);

impl Origins {
    pub fn note(&mut self, path: FieldPath, variable: &str) {
        self.0.push((path, variable.into()));
    }

    /// The variable that set this field or what holds it.
    pub fn of(&self, path: &FieldPath) -> Option<&str> {
        let above = self.0.iter().filter(|(set, _)| path.0.starts_with(&set.0));
        above.max_by_key(|(set, _)| set.0.len()).map(|(_, name)| name.as_str())
    }
}

/// Sets the fields that the variables name.
pub fn apply(
    tree: &mut Tree,
    table: fn() -> Table,
    environment: &[(String, String)],
    problems: &mut Vec<Problem>,
) -> Origins {
    let mut origins = Origins::default();
    let mut settings = Vec::new();
    for (name, value) in environment {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        match resolve(rest, table) {
            Ok((path, kind)) => settings.push((path, kind, name, value)),
            Err(_) if is_service_link(rest) => {}
            Err(Unknown { wrong, right }) => problems.push(problem(name, &FieldPath::default(), wrong, right)),
        }
    }
    // What holds a field is set before the field, and item 0 before item 1, in whatever order the environment has them.
    settings.sort_by(|a, b| a.0.cmp(&b.0));
    for (path, kind, name, value) in settings {
        let value = match kind {
            Kind::Plain(_) => Ok(Tree::Word(value.clone())),
            Kind::Whole(_) | Kind::List(_) | Kind::Section(_) => yaml::parse(value),
        };
        let value = match value {
            Ok(value) => value,
            Err(refusal) => {
                problems.push(problem(name, &path, refusal.wrong, refusal.right));
                continue;
            }
        };
        match set(tree, &path.0, value) {
            Ok(()) => origins.note(path, name),
            Err(length) => {
                let right = format!("the list has {length} items, so the next new one is number {length}");
                problems.push(problem(name, &path, "names an item beyond the end of its list".into(), right));
            }
        }
    }
    origins
}

/// The variable that stands for a field of the reference, with 0 for each item of a list.
pub fn variable(parts: &[String]) -> String {
    format!("{PREFIX}{}", parts.join("__"))
}

/// Puts the value where the path leads, and makes what is not there yet. `Err` is the length of a list that is too short.
pub fn set(tree: &mut Tree, path: &[Step], value: Tree) -> Result<(), usize> {
    let Some((step, deeper)) = path.split_first() else {
        *tree = value;
        return Ok(());
    };
    if *tree == Tree::Null {
        *tree = match step {
            Step::Field(_) => Tree::Map(Vec::new()),
            Step::Item(_) => Tree::List(Vec::new()),
        };
    }
    let inside = match (tree, step) {
        (Tree::Map(entries), Step::Field(name)) => {
            if !entries.iter().any(|(entry, _)| entry == name) {
                entries.push((name.clone(), Tree::Null));
            }
            entries.iter_mut().find(|(entry, _)| entry == name).map(|(_, value)| value)
        }
        (Tree::List(items), Step::Item(index)) => {
            if *index > items.len() {
                return Err(items.len());
            }
            if *index == items.len() {
                items.push(Tree::Null);
            }
            items.get_mut(*index)
        }
        // The file has something else here, and is refused for it.
        _ => None,
    };
    inside.map_or(Ok(()), |inside| set(inside, deeper, value))
}

struct Unknown {
    wrong: String,
    right: String,
}

fn resolve(rest: &str, table: fn() -> Table) -> Result<(FieldPath, Kind), Unknown> {
    let mut path = FieldPath::default();
    let mut kind = Kind::Section(table);
    for part in rest.split("__") {
        let (step, inside) = match kind {
            Kind::Section(table) => field(part, table(), rest)?,
            Kind::List(of) => match part.parse() {
                Ok(index) => (Step::Item(index), *of),
                Err(_) => return Err(unknown(rest)),
            },
            Kind::Plain(_) | Kind::Whole(_) => return Err(unknown(rest)),
        };
        path.0.push(step);
        kind = inside;
    }
    Ok((path, kind))
}

fn field(part: &str, table: Table, rest: &str) -> Result<(Step, Kind), Unknown> {
    if let Some(later) = table.later.iter().find(|later| variable_part(later.name) == part) {
        return Err(Unknown { wrong: "is not in this version".into(), right: later.instead.into() });
    }
    let found = table.fields.into_iter().find(|field| variable_part(&field.name) == part);
    found.map(|field| (Step::Field(field.name), field.kind)).ok_or_else(|| unknown(rest))
}

/// `serviceVersion` as a part of a variable's name: `SERVICE_VERSION`.
pub fn variable_part(field: &str) -> String {
    let mut part = String::new();
    for letter in field.chars() {
        if letter.is_uppercase() {
            part.push('_');
        }
        part.push(letter.to_ascii_uppercase());
    }
    part
}

fn unknown(rest: &str) -> Unknown {
    let mut known = Vec::new();
    names(super::Config::table, &mut Vec::new(), &mut known);
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = rest.split("__").map(|part| if is_number(part) { "0" } else { part }).collect();
    let asked = format!("{PREFIX}{}", parts.join("__"));
    let form = "a variable is `SPANMESH_` and the path of a field, in capitals, with `__` between the levels";
    let right = match nearest(&asked, known.iter().map(String::as_str)) {
        Some(name) => format!("did you mean `{name}`? {form}"),
        None => format!("{form}: `SPANMESH_ADMIN__ADDRESS`"),
    };
    Unknown { wrong: "names no field".into(), right }
}

fn names(table: fn() -> Table, parts: &mut Vec<String>, known: &mut Vec<String>) {
    for field in table().fields {
        let depth = parts.len();
        parts.push(variable_part(&field.name));
        known.push(variable(parts));
        let mut kind = field.kind;
        while let Kind::List(of) = kind {
            parts.push("0".into());
            kind = *of;
        }
        if let Kind::Section(table) = kind {
            names(table, parts, known);
        }
        parts.truncate(depth);
    }
}

/// Kubernetes puts the addresses of every Service of the namespace into a pod's environment, and a Service may be called `spanmesh-…`:
/// `…_SERVICE_HOST`, `…_SERVICE_PORT`, `…_SERVICE_PORT_HTTP`, `…_PORT`, `…_PORT_80_TCP`, `…_PORT_80_TCP_ADDR`.
fn is_service_link(rest: &str) -> bool {
    let is_port = |after: &str| {
        let mut parts = after.split('_');
        let number = parts.next().is_some_and(|number| number.parse::<u16>().is_ok());
        number && parts.next().is_some_and(|protocol| ["TCP", "UDP", "SCTP"].contains(&protocol))
    };
    rest.ends_with("_SERVICE_HOST")
        || rest.ends_with("_PORT")
        || rest.contains("_SERVICE_PORT_")
        || rest.match_indices("_PORT_").any(|(at, found)| rest.get(at + found.len()..).is_some_and(is_port))
}

fn problem(variable: &str, path: &FieldPath, wrong: String, right: String) -> Problem {
    Problem { place: Place::Variable(variable.into()), field: path.to_string(), wrong, right }
}

const PREFIX: &str = "SPANMESH_";

#[cfg(test)]
mod tests {
    use super::*;

    fn overlaid(text: &str, variables: &[(&str, &str)]) -> (Tree, Vec<String>) {
        let environment: Vec<_> = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let (mut tree, mut problems) = (yaml::parse(text).unwrap(), Vec::new());
        apply(&mut tree, super::super::Config::table, &environment, &mut problems);
        (tree, problems.iter().map(Problem::to_string).collect())
    }

    #[test]
    fn a_variable_sets_a_field_at_any_depth() {
        let (tree, problems) = overlaid(
            "node: {service: a}\n",
            &[
                ("SPANMESH_UPSTREAMS__1__NAME", "b"),
                ("SPANMESH_NODE__SERVICE_VERSION", "1.10"),
                ("SPANMESH_UPSTREAMS__0__NAME", "a"),
                ("SPANMESH_LISTENERS", "[{name: x}]"),
                ("PATH", "/bin"),
            ],
        );
        assert_eq!(problems, Vec::<String>::new());
        let mut same = yaml::parse(
            "node: {service: a, serviceVersion: \"1.10\"}\nlisteners: [{name: x}]\nupstreams: [{name: a}, {name: b}]\n",
        )
        .unwrap();
        for (path, word) in [
            (vec![Step::Field("node".into()), Step::Field("serviceVersion".into())], "1.10"),
            (vec![Step::Field("upstreams".into()), Step::Item(0), Step::Field("name".into())], "a"),
            (vec![Step::Field("upstreams".into()), Step::Item(1), Step::Field("name".into())], "b"),
        ] {
            set(&mut same, &path, Tree::Word(word.into())).unwrap();
        }
        assert_eq!(tree, same);
    }

    #[test]
    fn a_variable_that_names_no_field_is_refused_with_the_nearest_name() {
        for (name, told) in [
            ("SPANMESH_ADMIN_ADDRESS", "did you mean `SPANMESH_ADMIN__ADDRESS`?"),
            ("SPANMESH_LIMITS__HEADER_TIMOUT", "did you mean `SPANMESH_LIMITS__HEADER_TIMEOUT`?"),
            ("SPANMESH_LISTENERS__3__ADRESS", "did you mean `SPANMESH_LISTENERS__0__ADDRESS`?"),
            ("SPANMESH_WORKERS__0", "names no field"),
            ("SPANMESH_LISTENERS__IN__ADDRESS", "names no field"),
            ("SPANMESH_IDENTITY__X", "is not in this version"),
            ("SPANMESH_", "names no field"),
            ("SPANMESH_LISTENERS__4__ADDRESS", "the list has 0 items"),
            ("SPANMESH_LISTENERS__99999999999999999999__ADDRESS", "names no field"),
            ("SPANMESH_LISTENERS", "is not valid YAML"),
        ] {
            let (_, problems) = overlaid("version: 1\n", &[(name, "[")]);
            assert_eq!(problems.len(), 1, "{name} {problems:?}");
            assert!(problems[0].starts_with(&format!("{name}: ")) && problems[0].contains(told), "{problems:?}");
        }
    }

    #[test]
    fn addresses_of_kubernetes_services_are_no_configuration() {
        for name in [
            "SPANMESH_CONSOLE_SERVICE_HOST",
            "SPANMESH_CONTROL_PLANE_PORT_14010_TCP_ADDR",
            "SPANMESH_CONSOLE_SERVICE_PORT_HTTP",
            "SPANMESH_CONSOLE_PORT",
        ] {
            assert_eq!(overlaid("version: 1\n", &[(name, "10.0.0.1")]).1, Vec::<String>::new());
        }
    }
}
