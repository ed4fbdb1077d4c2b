//! Which of the fields that a proxy looks at a head has: found in one walk over its names, because to look up a name that
//! is not there costs about as much as to walk over five that are.

use std::ops::BitOr;

use http::HeaderMap;

/// A set of fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noted(u16);

impl Noted {
    pub const CONNECTION: Self = Self(1);
    pub const LENGTH: Self = Self(1 << 1);
    pub const CODING: Self = Self(1 << 2);
    pub const EXPECT: Self = Self(1 << 3);
    pub const TE: Self = Self(1 << 4);
    pub const UPGRADE: Self = Self(1 << 5);
    pub const PROXY_AUTHORIZATION: Self = Self(1 << 6);
    /// Others that belong to one connection.
    pub const HOP: Self = Self(1 << 7);
    /// The mesh's own.
    pub const MESH: Self = Self(1 << 8);

    pub fn of(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::default(), |noted, name| noted | Self::field(name.as_str()))
    }

    pub fn has(self, fields: Self) -> bool {
        self.0 & fields.0 != 0
    }

    fn field(name: &str) -> Self {
        match name {
            "connection" => Self::CONNECTION,
            "content-length" => Self::LENGTH,
            "transfer-encoding" => Self::CODING,
            "expect" => Self::EXPECT,
            "te" => Self::TE,
            "upgrade" => Self::UPGRADE,
            "proxy-authorization" => Self::PROXY_AUTHORIZATION,
            "keep-alive" | "proxy-connection" | "http2-settings" => Self::HOP,
            _ if name.starts_with(super::MESH) => Self::MESH,
            _ => Self::default(),
        }
    }
}

impl BitOr for Noted {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::headers::HOP_BY_HOP;

    #[test]
    fn every_field_that_is_stripped_is_noted() {
        for name in &HOP_BY_HOP {
            let noted = Noted::field(name.as_str());
            assert!((Noted::HOP | Noted::TE | Noted::CODING | Noted::UPGRADE).has(noted), "{name}");
        }
        assert!(Noted::field("spanmesh-keep") == Noted::MESH && Noted::field("x") == Noted::default());
    }
}
