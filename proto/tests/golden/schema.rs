//! Reads messages by the text of the protocols alone, so that what is generated from it is held against something else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Of each message its fields, by number.
pub struct Schema(BTreeMap<String, BTreeMap<u64, Field>>);

struct Field {
    name: String,
    kind: String,
}

/// What stands behind a field's number.
enum Value<'a> {
    Number(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
}

impl Schema {
    pub fn read(files: &[String]) -> Self {
        let mut messages: BTreeMap<String, BTreeMap<u64, Field>> = BTreeMap::new();
        let mut now = None;
        for line in files.iter().flat_map(|file| file.lines()) {
            let words: Vec<&str> =
                line.split("//").next().unwrap().split([' ', ';']).filter(|word| !word.is_empty()).collect();
            match words[..] {
                ["message", name, "{" | "{}"] => {
                    messages.insert(name.into(), BTreeMap::new());
                    now = Some(name.to_owned());
                }
                ["enum" | "service", ..] => now = None,
                [.., kind, name, "=", number] if now.is_some() => {
                    let field = Field { name: name.into(), kind: kind.into() };
                    messages.get_mut(now.as_ref().unwrap()).unwrap().insert(number.parse().unwrap(), field);
                }
                _ => {}
            }
        }
        Self(messages)
    }

    /// Each as `Message.field`.
    pub fn all(&self) -> impl Iterator<Item = String> {
        self.0
            .iter()
            .flat_map(|(message, fields)| fields.values().map(move |field| format!("{message}.{}", field.name)))
    }

    /// For people.
    pub fn show(&self, message: &str, bytes: &[u8]) -> Result<String, String> {
        let mut text = String::new();
        self.walk(message, bytes, &mut |depth, _, line| writeln!(text, "{:1$}{line}", "", depth * 2).unwrap(), 0)?;
        Ok(text)
    }

    /// Those that are there.
    pub fn fields(&self, message: &str, bytes: &[u8], seen: &mut BTreeSet<String>) -> Result<(), String> {
        self.walk(message, bytes, &mut |_, field, _| seen.extend([field.to_owned()]), 0)
    }

    fn walk(
        &self,
        message: &str,
        mut bytes: &[u8],
        tell: &mut dyn FnMut(usize, &str, String),
        depth: usize,
    ) -> Result<(), String> {
        let fields = self.0.get(message).ok_or(format!("there is no {message}"))?;
        let mut kind_of_body = None;
        while !bytes.is_empty() {
            let tag = varint(&mut bytes)?;
            let value = value(tag & 7, &mut bytes)?;
            let field = fields.get(&(tag >> 3)).ok_or(format!("{message} has no field {}", tag >> 3))?;
            let Field { name, kind } = field;
            let place = format!("{message}.{name}");
            let inner = match (kind.as_str(), &value) {
                ("bytes", Value::Bytes(_)) => kind_of_body,
                (kind, Value::Bytes(_)) if self.0.contains_key(kind) => Some(kind),
                _ => None,
            };
            if let (Some(inner), Value::Bytes(bytes)) = (inner, &value) {
                tell(depth, &place, format!("{name}: {inner}"));
                self.walk(inner, bytes, tell, depth + 1)?;
                continue;
            }
            let shown = match (kind.as_str(), value) {
                ("string", Value::Bytes(bytes)) => {
                    let text = std::str::from_utf8(bytes).map_err(|error| format!("{place}: {error}"))?;
                    if place == "Resource.kind" {
                        kind_of_body = body(text);
                    }
                    format!("{text:?}")
                }
                ("bytes", Value::Bytes(bytes)) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
                ("bool", Value::Number(number @ 0..=1)) => (number == 1).to_string(),
                ("double", Value::Fixed(bits)) => format!("{:?}", f64::from_bits(bits)),
                ("fixed64", Value::Fixed(number)) => format!("0x{number:x}"),
                ("uint32" | "uint64" | "int64" | "Parent", Value::Number(number)) => number.to_string(),
                (kind, _) => return Err(format!("{place} is no {kind}")),
            };
            tell(depth, &place, format!("{name}: {shown}"));
        }
        Ok(())
    }
}

/// What a resource of this kind has in its body.
fn body(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "policy" => "Policy",
        "destination" => "Chain",
        "thresholds" => "Thresholds",
        "capture" => "Capture",
        _ => return None,
    })
}

fn value<'a>(wire: u64, bytes: &mut &'a [u8]) -> Result<Value<'a>, String> {
    Ok(match wire {
        0 => Value::Number(varint(bytes)?),
        1 => Value::Fixed(u64::from_le_bytes(take(bytes, 8)?.try_into().unwrap())),
        2 => {
            let length = varint(bytes)? as usize;
            Value::Bytes(take(bytes, length)?)
        }
        other => return Err(format!("{other} is no wire type of these protocols")),
    })
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err("a number does not end".into())
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], String> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or("ends too early")?;
    *bytes = rest;
    Ok(taken)
}
