//! Which worker serves which inherited socket. Pure: the number of workers and the listeners may have changed.

use std::net::SocketAddr;

use super::Socket;
use super::successor::same;

/// Who serves what.
#[derive(Debug, Default)]
pub struct Assignment {
    /// For each worker, what it accepts from; several sockets of one listener when the predecessor had more workers.
    pub workers: Vec<Vec<Socket>>,
    /// What is still to be bound, with SO_REUSEPORT beside the inherited sockets of the same address.
    pub to_bind: Vec<Bind>,
    /// Sockets that the configuration has no place for: accept what waits in them, then close them.
    pub retired: Vec<Socket>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Bind {
    pub worker: usize,
    pub name: String,
    pub address: SocketAddr,
}

/// Deals the inherited sockets of each wanted listener out to the workers in turn. All of them are adopted, since the
/// close of a SO_REUSEPORT listener resets what waits in its queue; each worker ends with at least one per listener.
/// A listener is known by its address, or by its name too when the wanted port is 0; a socket gets the wanted name.
pub fn assign(inherited: Vec<Socket>, wanted: &[(String, SocketAddr)], workers: usize) -> Assignment {
    let workers = workers.max(1);
    let mut result = Assignment { workers: (0..workers).map(|_| Vec::new()).collect(), ..Assignment::default() };
    let mut rest = inherited;
    for (name, address) in wanted {
        let (mine, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|socket| fits(socket, name, *address));
        rest = others;
        // With port 0 the rest of the listener's sockets must share the port that the first one got.
        let bound = mine.first().map_or(*address, |socket| socket.address);
        for worker in mine.len()..workers {
            result.to_bind.push(Bind { worker, name: name.clone(), address: bound });
        }
        for (turn, socket) in mine.into_iter().enumerate() {
            if let Some(worker) = result.workers.get_mut(turn % workers) {
                worker.push(Socket { name: name.clone(), ..socket });
            }
        }
    }
    result.retired = rest;
    result
}

/// Takes out the one socket of a listener that is not per worker (admin, status).
pub fn pick(inherited: &mut Vec<Socket>, name: &str, address: SocketAddr) -> Option<Socket> {
    let at = inherited.iter().position(|socket| fits(socket, name, address))?;
    Some(inherited.swap_remove(at))
}

fn fits(socket: &Socket, name: &str, wanted: SocketAddr) -> bool {
    same(wanted, socket.address) && (wanted.port() != 0 || socket.name == name)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// `count` sockets that say they are bound to `address`.
    fn sockets(name: &str, address: &str, count: usize) -> Vec<Socket> {
        let listener = || TcpListener::bind("127.0.0.1:0").unwrap();
        let one = |_| Socket { name: name.into(), address: address.parse().unwrap(), listener: listener() };
        (0..count).map(one).collect()
    }

    fn wanted(list: &[(&str, &str)]) -> Vec<(String, SocketAddr)> {
        list.iter().map(|(name, address)| ((*name).into(), address.parse().unwrap())).collect()
    }

    fn counts(assignment: &Assignment) -> Vec<usize> {
        assignment.workers.iter().map(Vec::len).collect()
    }

    #[test]
    fn with_as_many_workers_each_gets_one() {
        let result = assign(sockets("in", "127.0.0.1:7001", 2), &wanted(&[("in", "127.0.0.1:7001")]), 2);
        assert_eq!(counts(&result), [1, 1]);
        assert!(result.to_bind.is_empty() && result.retired.is_empty());
    }

    #[test]
    fn with_fewer_workers_none_is_left_out() {
        let result = assign(sockets("in", "127.0.0.1:7001", 5), &wanted(&[("in", "127.0.0.1:7001")]), 2);
        assert_eq!(counts(&result), [3, 2]);
        assert!(result.to_bind.is_empty() && result.retired.is_empty());
    }

    #[test]
    fn with_more_workers_the_rest_is_bound() {
        let result = assign(sockets("in", "127.0.0.1:7001", 1), &wanted(&[("in", "127.0.0.1:7001")]), 3);
        assert_eq!(counts(&result), [1, 0, 0]);
        let workers: Vec<_> = result.to_bind.iter().map(|bind| bind.worker).collect();
        assert_eq!(workers, [1, 2]);
    }

    #[test]
    fn a_new_address_is_bound_and_the_old_one_retired() {
        let result = assign(sockets("in", "127.0.0.1:7001", 2), &wanted(&[("in", "127.0.0.1:7002")]), 1);
        assert_eq!(counts(&result), [0]);
        let address = "127.0.0.1:7002".parse().unwrap();
        assert_eq!(result.to_bind, [Bind { worker: 0, name: "in".into(), address }]);
        assert_eq!(result.retired.len(), 2);
    }

    #[test]
    fn a_renamed_listener_keeps_its_sockets() {
        let result = assign(sockets("in", "[::1]:7001", 1), &wanted(&[("inbound", "[::1]:7001")]), 1);
        assert_eq!(result.workers[0][0].name, "inbound");
        assert!(result.to_bind.is_empty() && result.retired.is_empty());
    }

    #[test]
    fn port_0_goes_by_the_name_and_shares_the_port_it_got() {
        let mut inherited = sockets("in", "127.0.0.1:7001", 1);
        inherited.extend(sockets("out", "127.0.0.1:7002", 1));
        let result = assign(inherited, &wanted(&[("in", "127.0.0.1:0"), ("out", "127.0.0.1:0")]), 2);
        assert_eq!(counts(&result), [2, 0]);
        let ports: Vec<_> = result.to_bind.iter().map(|bind| (bind.name.as_str(), bind.address.port())).collect();
        assert_eq!(ports, [("in", 7001), ("out", 7002)]);
    }

    #[test]
    fn a_single_listener_is_picked_out() {
        let mut inherited = sockets("admin", "127.0.0.1:14000", 1);
        inherited.extend(sockets("in", "127.0.0.1:7001", 1));
        let address = "127.0.0.1:14000".parse().unwrap();
        assert_eq!(pick(&mut inherited, "admin", address).unwrap().name, "admin");
        assert!(pick(&mut inherited, "admin", address).is_none());
        assert_eq!(inherited.len(), 1);
    }
}
