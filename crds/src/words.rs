//! Closed lists of words. The schema's description of one says what each of its words means, because `kubectl explain`
//! shows nothing else.

macro_rules! words {
    ($(#[doc = $about:literal])+ pub enum $Name:ident $(= $Usual:ident)? { $(#[doc = $meaning:literal] $Word:ident = $word:literal,)+ }) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize, serde::Serialize)]
        pub enum $Name {
            $(#[doc = $meaning] #[serde(rename = $word)] $Word,)+
        }

        impl $Name {
            pub const ALL: &'static [$Name] = &[$($Name::$Word),+];

            pub fn word(self) -> &'static str {
                match self { $($Name::$Word => $word),+ }
            }
        }

        impl std::fmt::Display for $Name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }

        $(impl Default for $Name {
            fn default() -> $Name {
                $Name::$Usual
            }
        })?

        impl schemars::JsonSchema for $Name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($Name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let about = [$($about),+].concat();
                let meanings = [$(format!(" `{}`: {}", $word, $meaning.trim())),+].concat();
                schemars::json_schema!({
                    "type": "string",
                    "enum": [$($word),+],
                    "description": format!("{}{meanings}", about.trim()),
                })
            }
        }
    };
}

pub(crate) use words;
