//! Where policy comes from, where it does not stand in the file.

use std::path::PathBuf;

use super::grammar::{Endpoint, ServerName};
use super::schema::section;

section! {
    /// The control plane that pushes the policy. Without it the policy is this file's.
    pub struct ControlPlane {
        /// Where it is: `https://host:14010`, or `http://` in clear text. When one does not answer the next one is asked.
        addresses: Vec<Endpoint>,
        /// PEM file of the authorities that its certificate must lead to. Left out: those of the machine.
        root_file: Option<PathBuf>,
        /// The name that its certificate must have. Left out: the host of the address.
        server_name: Option<String> as Option<ServerName>,
        /// A file with a token that says who the proxy is; it is read again when it changes.
        token_file: Option<PathBuf>,
        /// A folder in which the last good policy is kept, for a start while the control plane is away. Left out: it is not kept.
        state: Option<PathBuf>,
        /// The Deployment or StatefulSet of the pod, where policies name it.
        workload: String = String::new(),
    }
}
