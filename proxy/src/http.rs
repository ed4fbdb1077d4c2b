//! HTTP: connections that are served, connections that are asked, and the messages in between. Nothing here decides
//! where a request goes or whether it is repeated; that is `rules`, called from `data_path`.

pub mod answer;
pub mod attempts;
pub mod body;
pub mod client;
pub mod counted;
pub mod cut;
pub mod debt;
pub mod finish;
pub mod framing;
pub mod grpc;
pub mod headers;
pub mod pool;
pub mod replay;
pub mod serve;
pub mod stalled;
pub mod uploads;
pub mod watched;
pub mod websocket;
pub mod windows;
