//! Variables of the environment, over the file.

use super::*;

#[test]
fn a_variable_overrides_the_file() {
    let config = with(
        EXAMPLE,
        &[
            ("SPANMESH_ADMIN__ADDRESS", "127.0.0.1:1"),
            ("SPANMESH_NODE__SERVICE_VERSION", "1.10"),
            ("SPANMESH_LISTENERS__0__ADDRESS", "127.0.0.1:2"),
            ("SPANMESH_LISTENERS__2__ROUTES__0__MATCH__METHOD", "PUT"),
            ("SPANMESH_LISTENERS__1__TRANSPARENT", "false"),
            ("SPANMESH_LISTENERS__1__OPAQUE_PORTS", "[25, 26]"),
            ("SPANMESH_LIMITS__HEADER_TIMEOUT", "3s"),
            ("SPANMESH_UPSTREAMS__2__NAME", "new"),
            ("SPANMESH_UPSTREAMS__2__ADDRESSES__0", "new:1"),
            ("SPANMESH_WORKERS", "2"),
            ("SPANMESH_POLICY__DESTINATIONS__0__FILE__PATH", "elsewhere"),
        ],
    )
    .unwrap();
    assert_eq!(config.admin.address.port(), 1);
    assert_eq!(config.node.service_version, "1.10");
    assert_eq!(config.listeners[0].address.port(), 2);
    assert_eq!(config.listeners[2].routes[0].matches.method.as_deref(), Some("PUT"));
    assert!(!config.listeners[1].transparent);
    assert_eq!(config.listeners[1].opaque_ports, [25, 26]);
    assert_eq!(config.limits.header_timeout, Duration::from_secs(3));
    assert_eq!(config.upstreams[2].addresses, [Address { host: "new".into(), port: 1 }]);
    assert_eq!(config.workers, Some(2));
    assert_eq!(config.policy.destinations[0].to, Target::File("elsewhere".into()));
}

#[test]
fn an_error_in_a_variable_names_the_variable() {
    for (name, value, says) in [
        ("SPANMESH_ADMIN__ADDRESS", "here", "admin.address: `here` has no port; "),
        ("SPANMESH_LIMITS__HEADER_TIMEOUT", "10", "limits.headerTimeout: `10` has no unit; "),
        ("SPANMESH_LIMITS", "{streams: 0}", "limits.streams: `0` is out of bounds; "),
        ("SPANMESH_LIMITS", "{", "limits: is not valid YAML: "),
        ("SPANMESH_WORKERS", "", "workers: is ``; "),
        ("SPANMESH_LISTENERS__0__UPSTREAM", "ap", "listeners[0].upstream: `ap` is not an upstream; "),
        ("SPANMESH_ADMIN_ADDRESS", "x", "names no field; did you mean `SPANMESH_ADMIN__ADDRESS`?"),
    ] {
        let found = with(EXAMPLE, &[(name, value)]).unwrap_err();
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with(&format!("{name}: {says}")), "{found:#?}");
    }
}

#[test]
fn a_variable_can_give_what_the_file_lacks() {
    let config = with("version: 1\n", &[("SPANMESH_ROLE", "gateway"), ("OTEL_SERVICE_NAME", "edge")]).unwrap();
    assert_eq!((config.role, config.node.service.as_str()), (Role::Gateway, "edge"));
    let ours = [("SPANMESH_NODE__SERVICE", "ours"), ("OTEL_SERVICE_NAME", "theirs")];
    assert_eq!(with(SMALL, &ours).unwrap().node.service, "ours");
    let config = with(SMALL, &[("OTEL_RESOURCE_ATTRIBUTES", "service.name")]).unwrap();
    assert_eq!(config.warnings.len(), 1);
}
