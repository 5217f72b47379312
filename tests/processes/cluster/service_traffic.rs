//! Tests with Services of each kind: if leaderrun reports that the Service routes to the leader, connections arrive
//! there.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use serde_json::{Value, json};

use testkit::{Candidate, Cluster, TIMEOUT, TestLock, eventually};

/// Returns the IPv4 address at which other machines would reach this machine.
fn own_address() -> Result<IpAddr, String> {
    address_towards("0.0.0.0:0", "192.0.2.1:9")
        .map_err(|_| "this machine has no address besides the loopback address".to_owned())
}

/// Returns the IPv4 address and the IPv6 address at which other machines would reach this machine.
fn own_addresses() -> Result<[IpAddr; 2], String> {
    let second = address_towards("[::]:0", "[2001:db8::1]:9");
    let second = second.map_err(|_| "this machine has no IPv6 address besides the loopback address".to_owned())?;
    Ok([own_address()?, second])
}

/// Returns the local address from which this machine would send to `remote`. `any` is the wildcard address of the same
/// family. Connecting a UDP socket sends nothing.
fn address_towards(any: &str, remote: &str) -> io::Result<IpAddr> {
    let socket = UdpSocket::bind(any)?;
    socket.connect(remote)?;
    Ok(socket.local_addr()?.ip())
}

/// A TCP port and a UDP port to which the tests' Services route.
struct Listeners {
    address: IpAddr,
    tcp: TcpListener,
    udp: UdpSocket,
}

impl Listeners {
    fn open(address: IpAddr) -> Self {
        let udp = UdpSocket::bind((address, 0)).expect("the address has a free UDP port");
        udp.set_read_timeout(Some(TIMEOUT)).expect("the timeout can be set");
        Self { address, tcp: TcpListener::bind((address, 0)).expect("the address has a free TCP port"), udp }
    }

    /// Returns the TCP port and the UDP port.
    fn ports(&self) -> (u16, u16) {
        let (tcp, udp) = (self.tcp.local_addr(), self.udp.local_addr());
        (tcp.expect("a bound socket has an address").port(), udp.expect("a bound socket has an address").port())
    }

    /// Connects to an address, or sends a packet to it, and checks that the connection or the packet arrives at these
    /// listeners.
    fn assert_reached(&self, to: SocketAddr, protocol: &str) {
        if protocol == "UDP" {
            let from = UdpSocket::bind((self.address, 0)).expect("the socket can be bound");
            from.send_to(b"hello", to).expect("the packet can be sent");
            let (length, sender) = self.udp.recv_from(&mut [0; 16]).expect("a packet arrives");
            assert_eq!((length, sender), (5, from.local_addr().expect("a bound socket has an address")));
        } else {
            let from = TcpStream::connect(to).expect("the connection can be opened");
            let (mut arrived, sender) = self.tcp.accept().expect("a connection arrives");
            assert_eq!(sender, from.local_addr().expect("a connected socket has an address"));
            drop(from);
            assert_eq!(arrived.read(&mut [0]).expect("the end of the connection can be read"), 0);
        }
    }

    /// Checks that all addresses and ports of a slice lead to these listeners. Returns the names of the ports.
    fn assert_all_reached(&self, slice: &Value) -> Vec<String> {
        let endpoints = slice["endpoints"].as_array().into_iter().flatten();
        let addresses = endpoints.flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten());
        let addresses: Vec<IpAddr> = addresses
            .map(|address| address.as_str().expect("the address is a string").parse().expect("the address is valid"))
            .collect();
        let mut names = Vec::new();
        for port in slice["ports"].as_array().into_iter().flatten() {
            let number = port["port"]
                .as_u64()
                .and_then(|number| u16::try_from(number).ok())
                .expect("the port has a valid number");
            for address in &addresses {
                self.assert_reached(
                    SocketAddr::new(*address, number),
                    port["protocol"].as_str().expect("the port has a protocol"),
                );
            }
            names.push(port["name"].as_str().unwrap_or_default().to_owned());
        }
        names
    }
}

/// A Service, the options of leaderrun, and the expected outcome.
struct Case {
    description: &'static str,
    /// The spec of the Service, if the Service exists.
    spec: Option<Value>,
    options: Vec<String>,
    /// If traffic is routed, the names of the ports that receive connections, and the expected text in the log.
    /// Otherwise, the expected reason in the log.
    outcome: Result<(&'static [&'static str], &'static str), &'static str>,
    /// The expected text in the output of `leaderrun doctor`.
    doctor: &'static str,
}

/// Returns the cases. The Services route to the ports `tcp` and `udp`.
fn cases(tcp: u16, udp: u16) -> Vec<Case> {
    let http = json!({ "name": "http", "port": 80, "targetPort": tcp });
    let dns = json!({ "name": "dns", "port": 53, "protocol": "UDP", "targetPort": udp });
    let unnamed = json!({ "port": 80, "targetPort": tcp });
    let named_target = json!({ "name": "http", "port": 80, "targetPort": "web" });
    let ports = |ports: &[&Value]| Some(json!({ "ports": ports }));
    // `port_option` is empty if `--port` is not given.
    let case = |description, spec, port_option: String, outcome, doctor| {
        let options = if port_option.is_empty() { vec![] } else { vec!["--port".to_owned(), port_option] };
        Case { description, spec, options, outcome, doctor }
    };
    let (routed, can_route) = ("the Service web routes to this candidate", "web can route to the leader");
    let headless = Some(json!({ "clusterIP": "None", "ports": [http] }));
    let selecting = Some(json!({ "selector": { "app": "web" }, "ports": [http] }));
    let external = Some(json!({ "type": "ExternalName", "externalName": "example.com" }));
    vec![
        case("no Service", None, String::new(), Err("there is no Service"), "create it without a selector"),
        case("a selector", selecting, String::new(), Err("has a selector"), "kubectl patch service web"),
        case("an ExternalName", external, String::new(), Err("is an ExternalName"), "use a ClusterIP"),
        case("one port", ports(&[&http]), String::new(), Ok((&["http"], routed)), can_route),
        case("one port by its name", ports(&[&http]), format!("http:{tcp}"), Ok((&["http"], routed)), can_route),
        case("one named port by number only", ports(&[&http]), tcp.to_string(), Ok((&["http"], routed)), can_route),
        case(
            "one port by another name",
            ports(&[&http]),
            format!("web:{tcp}"),
            Err("has no port named \"web\""),
            "try --port http:",
        ),
        case("a port without a name", ports(&[&unnamed]), String::new(), Ok((&[""], routed)), can_route),
        case("a port without a name by number", ports(&[&unnamed]), tcp.to_string(), Ok((&[""], routed)), can_route),
        case(
            "a target by name",
            ports(&[&named_target]),
            String::new(),
            Err("has the targetPort \"web\""),
            "--port http:8080",
        ),
        case(
            "a target by name and number",
            ports(&[&named_target]),
            format!("web:{tcp}"),
            Ok((&["http"], routed)),
            can_route,
        ),
        case("headless", headless, String::new(), Ok((&["http"], routed)), can_route),
        case("two ports", ports(&[&http, &dns]), String::new(), Ok((&["http", "dns"], routed)), can_route),
        case(
            "one of two ports",
            ports(&[&http, &dns]),
            tcp.to_string(),
            Ok((&["http"], "the Service web routes to this candidate, but not on its port dns")),
            can_route,
        ),
        case(
            "a port that the Service does not have",
            ports(&[&http, &dns]),
            "1".to_owned(),
            Err("has no port with the targetPort 1"),
            "try --port",
        ),
        case("UDP", ports(&[&dns]), String::new(), Ok((&["dns"], routed)), can_route),
        case("UDP by number", ports(&[&dns]), format!("{udp}/udp"), Ok((&["dns"], routed)), can_route),
        case("UDP by number as TCP", ports(&[&dns]), format!("{udp}/tcp"), Err("is for UDP"), "try --port dns:"),
    ]
}

/// Returns the output of `leaderrun doctor`.
fn doctor_output(lock: &TestLock, routing: &[&str], options: &[String]) -> String {
    let mut doctor = Candidate::subcommand("doctor", lock).args(routing).args(options).start();
    doctor.wait();
    doctor.output()
}

#[testkit::test(requires = own_address().map(drop))]
fn traffic_to_each_service_arrives_or_the_log_says_why_not() {
    let (lock, listeners, admin) = (
        TestLock::lease(),
        Listeners::open(own_address().expect("the machine has an address")),
        Cluster::shared().admin(),
    );
    let (services, address) =
        (format!("/api/v1/namespaces/{}/services", lock.namespace()), listeners.address.to_string());
    let slice = || {
        let slices = format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices", lock.namespace());
        let slice = admin.get(&format!("{slices}/web-leader")).unwrap_or_default();
        slice["endpoints"].as_array().is_some_and(|endpoints| !endpoints.is_empty()).then_some(slice)
    };
    let (tcp, udp) = listeners.ports();
    for Case { description, spec, options, outcome, doctor } in cases(tcp, udp) {
        if let Some(spec) = &spec {
            admin
                .create(&services, &json!({ "metadata": { "name": "web" }, "spec": spec }))
                .expect("the Service can be created");
        }
        let routing = ["--service", "web", "--address", &address];
        let report = doctor_output(&lock, &routing, &options);
        let grade = if outcome.is_ok() { "ok " } else { "FAILED " };
        let found = report.lines().any(|line| line.starts_with(grade) && line.contains(" Service "));
        assert!(found && report.contains(doctor), "{description}: {report}");
        let mut a = Candidate::new("a", &lock).args(routing).args(&options).run_script("sleep inf");
        match outcome {
            Ok((names, expected)) => {
                a.wait_for_log(expected);
                assert_eq!(listeners.assert_all_reached(&slice().expect("the slice exists")), names, "{description}");
            }
            Err(reason) => {
                a.wait_for_log(reason);
                assert_eq!(slice(), None, "{description}");
                assert!(!a.log().contains("routes to this candidate"), "{description}: {}", a.log());
            }
        }
        a.stop();
        eventually("traffic is no longer routed", || slice().is_none());
        if spec.is_some() {
            admin.delete(&format!("{services}/web")).expect("the Service can be deleted");
        }
    }
}

/// Connects to each address in a slice, checks that the connection arrives at this listener, and returns the addresses.
fn reached_addresses_of(listener: &TcpListener, slice: &Value) -> Vec<IpAddr> {
    let port = slice["ports"][0]["port"]
        .as_u64()
        .and_then(|number| u16::try_from(number).ok())
        .expect("the port has a valid number");
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let addresses = endpoints.map(|endpoint| {
        endpoint["addresses"][0].as_str().expect("the address is a string").parse().expect("the address is valid")
    });
    let assert_reached = |address: IpAddr| {
        let from = TcpStream::connect((address, port))
            .expect("the connection can be opened")
            .local_addr()
            .expect("a connected socket has an address");
        let (_, sender) = listener.accept().expect("a connection arrives");
        assert_eq!((sender.ip().to_canonical(), sender.port()), (from.ip(), from.port()));
        address
    };
    addresses.map(assert_reached).collect()
}

#[testkit::test(requires = own_addresses().map(drop))]
fn traffic_to_a_dual_stack_service_arrives_over_both_address_families() {
    let (lock, admin) = (TestLock::lease(), Cluster::shared().admin());
    let listener = TcpListener::bind("[::]:0").expect("a port is free in both families");
    let port = listener.local_addr().expect("a bound socket has an address").port();
    let spec = json!({ "ipFamilyPolicy": "RequireDualStack", "ports": [{ "port": 80, "targetPort": port }] });
    let services = format!("/api/v1/namespaces/{}/services", lock.namespace());
    admin
        .create(&services, &json!({ "metadata": { "name": "web" }, "spec": spec }))
        .expect("the Service can be created");
    let slices = format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices", lock.namespace());
    let reached_addresses =
        |slice: &str| reached_addresses_of(&listener, &admin.get(&format!("{slices}/{slice}")).unwrap_or_default());
    let [ipv4, ipv6] = own_addresses().expect("the machine has two addresses");
    for (addresses, missing) in [(vec![ipv4, ipv6], None), (vec![ipv4], Some("IPv6")), (vec![ipv6], Some("IPv4"))] {
        let address_option = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let routing = ["--service", "web", "--address", &address_option];
        let report = doctor_output(&lock, &routing, &[]);
        let mut a = Candidate::new("a", &lock).args(routing).run_script("sleep inf");
        a.wait_for_log("the Service web routes to this candidate");
        let (ipv6_addresses, ipv4_addresses): (Vec<IpAddr>, Vec<IpAddr>) =
            addresses.iter().partition(|address| address.is_ipv6());
        assert_eq!(reached_addresses("web-leader"), ipv4_addresses);
        assert_eq!(reached_addresses("web-leader-ipv6"), ipv6_addresses);
        assert!(report.contains("ok      Service     the Service web can route to the leader\n"), "{report}");
        let warning = missing.map(|family| format!("has no {family} address; "));
        assert_eq!(a.log().contains("this candidate has no "), missing.is_some(), "{}", a.log());
        assert_eq!(report.contains("note    Service "), missing.is_some(), "{report}");
        assert!(warning.is_none_or(|warning| a.log().contains(&warning)), "{}", a.log());
        a.stop();
        for slice in ["web-leader", "web-leader-ipv6"] {
            eventually("traffic is no longer routed", || reached_addresses(slice).is_empty());
        }
    }
}
