//! How a section of the configuration is declared: once, with each field's meaning, name, type, bounds and default.
//!
//! `section!` and `words!` make from one declaration the public type, its reading and writing, and the table from which
//! `variables` knows the names of the environment and `reference` writes the documentation.
//!
//! ```text
//! section! {
//!     /// What it is for.
//!     pub struct Name: Default {              // `: Default`: every field's default, and nothing where there is none; `: Copy`
//!         /// What the field means.
//!         field: usize,                       // required; an `Option<…>` may be left out
//!         field ("name"): String,             // when the file's name is not the field's in camelCase
//!         field: usize as Size,               // when the text has a grammar that the type does not tell
//!         field: Duration [SHORT..=LONG] = D, // bounds, both included, and the default
//!         field: Trust = usual(mode) => "…",  // a default that hangs on fields above, and the words for it
//!     }
//!     later { "name": "what to do instead"; } // fields of versions to come: refused by name
//! }
//! ```

use super::reader::Reader;
use super::tree::Tree;

/// A grammar of values: what is written in the file, and the plain type that the rest of the program sees.
pub trait Form {
    type Plain;

    /// `None` after noting in the reader what is wrong.
    fn read(reader: &mut Reader, tree: &Tree) -> Option<Self::Plain>;

    /// `Tree::Null` is left out of what is written.
    fn write(plain: &Self::Plain) -> Tree;

    fn kind() -> Kind;

    /// The value of a field that is left out and has no default; `None` when it must be written.
    fn absent() -> Option<Self::Plain> {
        None
    }
}

/// What a field holds, for the documentation and for variables.
pub enum Kind {
    /// One scalar, in these words.
    Plain(String),
    /// A map or list whose inside no variable reaches, in these words.
    Whole(String),
    List(Box<Kind>),
    Section(fn() -> Table),
}

/// A section's fields.
pub struct Table {
    pub about: String,
    pub fields: Vec<Info>,
    pub later: Vec<Later>,
}

/// One field.
pub struct Info {
    /// As in the file, in camelCase.
    pub name: String,
    pub about: String,
    pub kind: Kind,
    /// Lowest and highest, both allowed.
    pub bounds: Option<(Tree, Tree)>,
    pub usual: Usual,
}

/// What holds when a field is left out.
pub enum Usual {
    Required,
    Nothing,
    Value(Tree),
    Words(&'static str),
}

/// A field that this version refuses by name, because a later one will have it.
pub struct Later {
    pub name: &'static str,
    pub instead: &'static str,
    /// `name: {}` and `name: []` ask for nothing and are accepted.
    pub may_be_empty: bool,
}

impl Kind {
    pub fn words(&self) -> String {
        match self {
            Kind::Plain(words) | Kind::Whole(words) => words.clone(),
            Kind::List(of) => match of.as_ref() {
                Kind::Plain(words) => format!("a list, each {words}"),
                _ => "a list of sections".into(),
            },
            Kind::Section(_) => "a section".into(),
        }
    }
}

impl Table {
    pub fn names(&self) -> Vec<&str> {
        self.fields.iter().map(|field| field.name.as_str()).collect()
    }
}

/// `http2_idle_timeout` as the file writes it: `http2IdleTimeout`.
pub fn camel(field: &str) -> String {
    let mut words = field.split('_');
    let mut name = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (head, tail) = word.split_at_checked(1).unwrap_or((word, ""));
        name += &head.to_uppercase();
        name += tail;
    }
    name
}

/// Doc comments keep the space after `///`.
pub fn prose(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// A map without what is `Null`.
pub fn written(entries: Vec<(String, Tree)>) -> Tree {
    Tree::Map(entries.into_iter().filter(|(_, value)| *value != Tree::Null).collect())
}

pub fn entry<'a>(entries: &'a [(String, Tree)], name: &str) -> Option<&'a Tree> {
    entries.iter().find(|(entry, _)| entry == name).map(|(_, value)| value)
}

/// A field that may be left out still has bounds.
pub trait Bounded<Unit> {
    fn unit(&self) -> Option<&Unit>;
}

impl<Unit> Bounded<Unit> for Unit {
    fn unit(&self) -> Option<&Unit> {
        Some(self)
    }
}

impl<Unit> Bounded<Unit> for Option<Unit> {
    fn unit(&self) -> Option<&Unit> {
        self.as_ref()
    }
}

/// Reads a field that is written, and holds it to its bounds.
pub fn read_within<F, Unit>(reader: &mut Reader, tree: &Tree, low: &Unit, high: &Unit) -> Option<F::Plain>
where
    F: Form,
    F::Plain: Bounded<Unit> + From<Unit>,
    Unit: PartialOrd + Clone,
{
    let plain = F::read(reader, tree)?;
    if plain.unit().is_none_or(|unit| low <= unit && unit <= high) {
        return Some(plain);
    }
    let (low, high) = (F::write(&low.clone().into()), F::write(&high.clone().into()));
    reader.wrong(
        format!("{} is out of bounds", tree.describe()),
        format!("write {} to {}", low.describe(), high.describe()),
    )
}

macro_rules! section {
    (
        $(#[doc = $about:literal])*
        pub struct $Section:ident $(: $($own_trait:ident)+)? {
            $(
                $(#[doc = $doc:literal])+
                $field:ident $(($name:literal))? : $plain:ty $(as $form:ty)? $([$low:tt ..= $high:tt])? $(= $default:expr $(=> $words:literal)?)?,
            )*
        }
        $(beside { $( $(#[doc = $beside_doc:literal])+ $beside:ident : $beside_type:ty, )+ })?
        $(later { $( $later:literal : $instead:literal $($may_be_empty:ident)?; )+ })?
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Section {
            $( $(#[doc = $doc])+ pub $field: $plain, )*
            $( $( $(#[doc = $beside_doc])+ pub $beside: $beside_type, )+ )?
        }

        impl $Section {
            pub(in crate::config) fn table() -> $crate::config::schema::Table {
                $crate::config::schema::Table {
                    about: $crate::config::schema::prose(&[$($about),*]),
                    fields: vec![$( $crate::config::schema::Info {
                        name: section!(@name $field $($name)?),
                        about: $crate::config::schema::prose(&[$($doc),+]),
                        kind: <section!(@form $plain $(, $form)?) as $crate::config::schema::Form>::kind(),
                        bounds: section!(@bounds [$($low $high)?] $plain $(, $form)?),
                        usual: section!(@usual [$($default $(=> $words)?)?] $plain $(, $form)?),
                    } ),*],
                    later: vec![$($( $crate::config::schema::Later {
                        name: $later,
                        instead: $instead,
                        may_be_empty: section!(@flag $($may_be_empty)?),
                    } ),+)?],
                }
            }
        }

        impl $crate::config::schema::Form for $Section {
            type Plain = Self;

            fn read(reader: &mut $crate::config::reader::Reader, tree: &$crate::config::tree::Tree) -> Option<Self> {
                let entries = reader.section(tree, Self::table)?;
                $(
                    let name: String = section!(@name $field $($name)?);
                    let $field: Option<$plain> = match $crate::config::schema::entry(entries, &name) {
                        Some(written) => reader.field(&name, |reader| {
                            section!(@read reader written [$($low $high)?] $plain $(, $form)?)
                        }),
                        None => section!(@absent reader name [$($default)?] $plain $(, $form)?),
                    };
                )*
                let _ = entries;
                Some(Self { $( $field: $field?, )* $( $( $beside: Default::default(), )+ )? })
            }

            fn write(plain: &Self) -> $crate::config::tree::Tree {
                let _ = plain;
                $crate::config::schema::written(vec![$( (
                    section!(@name $field $($name)?),
                    <section!(@form $plain $(, $form)?) as $crate::config::schema::Form>::write(&plain.$field),
                ) ),*])
            }

            fn kind() -> $crate::config::schema::Kind {
                $crate::config::schema::Kind::Section(Self::table)
            }
        }

        section!(@own [$($($own_trait)+)?] $Section { $( $field [$($default)?] )* });
    };

    (@name $field:ident $name:literal) => { $name.to_owned() };
    (@name $field:ident) => { $crate::config::schema::camel(stringify!($field)) };

    (@form $plain:ty, $form:ty) => { $form };
    (@form $plain:ty) => { $plain };

    (@flag empty) => { true };
    (@flag) => { false };

    (@bounds [] $($form:ty),+) => { None };
    (@bounds [$low:tt $high:tt] $($form:ty),+) => {{
        type Written = section!(@form $($form),+);
        Some((
            <Written as $crate::config::schema::Form>::write(&$low.into()),
            <Written as $crate::config::schema::Form>::write(&$high.into()),
        ))
    }};

    (@usual [] $($form:ty),+) => {
        match <section!(@form $($form),+) as $crate::config::schema::Form>::absent() {
            Some(_) => $crate::config::schema::Usual::Nothing,
            None => $crate::config::schema::Usual::Required,
        }
    };
    (@usual [$default:expr] $($form:ty),+) => {
        $crate::config::schema::Usual::Value(
            <section!(@form $($form),+) as $crate::config::schema::Form>::write(&$default),
        )
    };
    (@usual [$default:expr => $words:literal] $($form:ty),+) => { $crate::config::schema::Usual::Words($words) };

    (@read $reader:ident $written:ident [] $($form:ty),+) => {
        <section!(@form $($form),+) as $crate::config::schema::Form>::read($reader, $written)
    };
    (@read $reader:ident $written:ident [$low:tt $high:tt] $($form:ty),+) => {
        $crate::config::schema::read_within::<section!(@form $($form),+), _>($reader, $written, &$low, &$high)
    };

    (@absent $reader:ident $name:ident [] $($form:ty),+) => {
        match <section!(@form $($form),+) as $crate::config::schema::Form>::absent() {
            Some(plain) => Some(plain),
            None => $reader.missing(&$name, Self::table),
        }
    };
    (@absent $reader:ident $name:ident [$default:expr] $($form:ty),+) => { Some($default) };

    (@or_empty []) => { Default::default() };
    (@or_empty [$default:expr]) => { $default };

    (@own [] $($any:tt)*) => {};
    (@own [Copy $($more:ident)*] $Section:ident $fields:tt) => {
        impl Copy for $Section {}
        section!(@own [$($more)*] $Section $fields);
    };
    (@own [Default] $Section:ident { $( $field:ident [$($default:expr)?] )* }) => {
        impl Default for $Section {
            fn default() -> Self {
                Self { $( $field: section!(@or_empty [$($default)?]) ),* }
            }
        }
    };
}
pub(super) use section;

/// A closed list of words, and the words that a later version will add.
macro_rules! words {
    (
        $(#[doc = $about:literal])*
        pub enum $Words:ident { $( $(#[doc = $doc:literal])+ $Word:ident = $word:literal, )+ }
        $(later { $($later:literal),+ })?
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $Words { $( $(#[doc = $doc])+ $Word, )+ }

        impl $Words {
            /// The word in the file.
            pub fn name(self) -> &'static str {
                match self { $( Self::$Word => $word, )+ }
            }
        }

        impl $crate::config::schema::Form for $Words {
            type Plain = Self;

            fn read(reader: &mut $crate::config::reader::Reader, tree: &$crate::config::tree::Tree) -> Option<Self> {
                match $crate::config::forms::text(reader, tree)? {
                    $( $word => Some(Self::$Word), )+
                    other => $crate::config::forms::no_such_word(reader, other, &[$($word),+], &[$($($later),+)?]),
                }
            }

            fn write(plain: &Self) -> $crate::config::tree::Tree {
                $crate::config::tree::Tree::text(plain.name())
            }

            fn kind() -> $crate::config::schema::Kind {
                $crate::config::schema::Kind::Plain([$(concat!("`", $word, "`")),+].join(" or "))
            }
        }
    };
}
pub(super) use words;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_in_camel_case_in_the_file() {
        assert_eq!(camel("http2_idle_timeout"), "http2IdleTimeout");
        assert_eq!(camel("name"), "name");
    }
}
