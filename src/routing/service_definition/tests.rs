//! Tests that ports and addresses are checked against the definition of a Service, and that unsuitable Services are
//! refused.

use super::*;

fn definition(spec: Value) -> ServiceDefinition {
    ServiceDefinition::new("default", "web", &json!({ "spec": spec }))
}

fn ports(defined: Value, wanted: &[&str]) -> Result<Vec<(String, u16, String)>, String> {
    let wanted: Vec<PortOption> = wanted.iter().map(|port| port.parse().unwrap()).collect();
    let ports = definition(json!({ "ports": defined })).slice_ports(&wanted)?;
    Ok(ports.into_iter().map(|SlicePort { name, number, protocol }| (name, number, protocol)).collect())
}

fn served(name: &str, number: u16, protocol: &str) -> (String, u16, String) {
    (name.to_owned(), number, protocol.to_owned())
}

#[test]
fn the_port_option_selects_ports_that_the_service_defines() {
    let server = json!([{ "name": "server", "port": 80, "targetPort": "http" }]);
    assert_eq!(ports(server.clone(), &["8080"]), Ok(vec![served("server", 8080, "TCP")]));
    assert_eq!(ports(server.clone(), &["server:8080"]), Ok(vec![served("server", 8080, "TCP")]));
    assert_eq!(
        ports(server, &["http:8080"]),
        Ok(vec![served("server", 8080, "TCP")]),
        "a port can also be selected by the name of its targetPort"
    );
    let unnamed = json!([{ "port": 80, "targetPort": 8080 }]);
    assert_eq!(ports(unnamed, &["9090"]), Ok(vec![served("", 9090, "TCP")]));
    let dns = json!([
        { "name": "dns", "port": 53, "protocol": "UDP", "targetPort": 5353 },
        { "name": "dns-tcp", "port": 53, "targetPort": 5353 },
        { "name": "metrics", "port": 9153 },
    ]);
    let both = vec![served("dns", 5353, "UDP"), served("dns-tcp", 5353, "TCP")];
    assert_eq!(ports(dns.clone(), &["5353"]), Ok(both), "a number selects the ports of both protocols");
    assert_eq!(ports(dns.clone(), &["5353/udp"]), Ok(vec![served("dns", 5353, "UDP")]));
    assert_eq!(ports(dns, &["9153"]), Ok(vec![served("metrics", 9153, "TCP")]));
}

#[test]
fn a_service_that_defines_no_ports_gets_those_of_the_port_option() {
    assert_eq!(ports(json!([]), &["8080"]), Ok(vec![served("", 8080, "TCP")]));
}

#[test]
fn without_the_port_option_all_ports_are_served() {
    let two = json!([
        { "name": "http", "port": 80, "targetPort": 8080 },
        { "name": "dns", "port": 53, "protocol": "UDP" },
    ]);
    assert_eq!(ports(two, &[]), Ok(vec![served("http", 8080, "TCP"), served("dns", 53, "UDP")]));
    let named = json!([{ "name": "http", "port": 80, "targetPort": "web" }]);
    let refusal = ports(named, &[]).unwrap_err();
    assert!(refusal.ends_with("set the number, for example --port http:8080"), "{refusal}");
}

#[test]
fn ports_that_do_not_match_the_service_are_refused_with_a_suggestion() {
    let server = json!([{ "name": "server", "port": 80, "targetPort": 8080 }]);
    let two =
        json!([{ "name": "http", "port": 80, "targetPort": 8080 }, { "name": "dns", "port": 53, "protocol": "UDP" }]);
    for (defined, wanted, remedy) in [
        (&server, &["http:8080"][..], "try --port server:8080"),
        (&server, &["server:8080/udp"], "try --port server:8080"),
        (&two, &["9090"], "try --port http:9090"),
        (&two, &["53/tcp"], "try --port dns:53/udp"),
        (&two, &["http:1", "http:2"], "for example --port http:8080,https:8443"),
    ] {
        let refusal = ports(defined.clone(), wanted).unwrap_err();
        assert!(refusal.ends_with(remedy), "{wanted:?}: {refusal}");
    }
}

#[test]
fn a_service_that_does_not_use_leaderruns_slices_is_refused() {
    assert_eq!(definition(json!({ "selector": {} })).check(), Ok(()));
    let refusal = definition(json!({ "selector": { "app": "web" } })).check().unwrap_err();
    assert!(refusal.contains("kubectl patch service web -n default --type=json"), "{refusal}");
    assert!(definition(json!({ "type": "ExternalName" })).check().is_err());
}

#[test]
fn addresses_are_checked_against_the_families_of_the_service() {
    let single = definition(json!({ "ipFamilies": ["IPv4"] }));
    assert!(single.has_family("IPv4") && !single.has_family("IPv6") && !single.is_dual_stack());
    assert_eq!(single.unserved_family(&["IPv4"]), None);
    assert!(single.family_mismatch("IPv6").contains("set --address to an IPv4 address"));
    let dual = definition(json!({ "ipFamilies": ["IPv6", "IPv4"] }));
    assert!(dual.has_family("IPv4") && dual.is_dual_stack());
    assert_eq!(dual.unserved_family(&["IPv4", "IPv6"]), None);
    assert!(dual.unserved_family(&["IPv4"]).is_some_and(|sentence| sentence.contains("no IPv6 address")));
    let headless = definition(json!({ "clusterIP": "None", "ipFamilies": ["IPv4", "IPv6"] }));
    assert_eq!(headless.unserved_family(&["IPv4"]), None, "a headless Service has no cluster IP");
}
