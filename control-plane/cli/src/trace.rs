//! A trace, from wherever it is kept to the terminal: `source` fetches it, `read` understands it, `tree` puts it in order
//! and finds what it waited for, `waterfall` draws it and `listing` writes it for scripts.

pub mod command;
pub mod listing;
pub mod proto;
pub mod read;
pub mod source;
pub mod span;
pub mod tree;
pub mod waterfall;
