//! The memory that HTTP/2 windows promise has a limit of its own: connections beyond it get narrow windows, carry
//! their requests all the same, and what ends gives its part back.

use spanmesh_tests::{Client, Origin, Protocol, Proxy, Wire, eventually, run};

const WIDE: u32 = 16 << 20;
const NARROW: u32 = 1 << 20;

/// The window of the connection and of each stream, as the proxy's first frames tell them.
async fn windows(proxy: &Proxy) -> (Wire, u32, u32) {
    let mut wire = Wire::connect(proxy.address("in")).await;
    wire.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let (mut connection, mut stream) = (None, 65_535);
    while connection.is_none() {
        let head = wire.exactly(9).await;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let payload = wire.exactly(length as usize).await;
        let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("four bytes"));
        match head[3] {
            0x4 if head[4] == 0 => {
                for at in (0..payload.len()).step_by(6).filter(|at| payload[*at..at + 2] == [0, 4]) {
                    stream = number(at + 2);
                }
            }
            0x8 => connection = Some(65_535 + number(0)),
            _ => {}
        }
    }
    (wire, connection.expect("a window"), stream)
}

#[test]
fn connections_beyond_the_budget_have_narrow_windows_until_others_end() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let proxy = Proxy::start(&format!(
            "listeners: [{{name: in, mode: inbound, address: '127.0.0.1:0', upstream: app}}]\n\
             upstreams: [{{name: app, addresses: ['{}'], protocol: http1}}]\n\
             limits: {{windowBytes: 64Mi}}\n",
            origin.address
        ));
        let (first, connection, stream) = windows(&proxy).await;
        assert_eq!((connection, stream), (WIDE, 240 * 1024));
        let (second, connection, _) = windows(&proxy).await;
        assert_eq!(connection, WIDE);
        let held = || proxy.metric("spanmesh_proxy_http2_window_bytes", &[]);
        eventually("the budget is seen to be lent", || held() == 2.0 * f64::from(WIDE)).await;
        let (_third, connection, stream) = windows(&proxy).await;
        assert_eq!((connection, stream), (NARROW, 65_535));
        let mut served = Client::connect(Protocol::Http2, proxy.address("in")).await;
        assert_eq!(served.get("/").await.body, "hello");
        drop((first, second, served));
        eventually("it came back", || held() == 0.0).await;
        assert_eq!(windows(&proxy).await.1, WIDE);
    });
}
