//! Runs leaderrun with an API server that sends arbitrary responses. leaderrun must keep running, use a bounded amount
//! of memory, and not start the command. No dangerous text from the server may reach a terminal.

use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use testkit::hostile_input::is_dangerous;
use testkit::{fuzz, hostile_input};
use testkit::{kubeconfig, leaderrun, port::Port, runtime, scratch, tls, users::ADMIN};

/// How long each candidate runs against a hostile server.
const DURATION: Duration = Duration::from_secs(4);

/// The maximum memory of leaderrun, in KiB. With an ordinary server it uses about ten thousand KiB.
const MAX_MEMORY: u64 = 64 * 1024;

/// The size of an endless body, in bytes. It exceeds every limit for responses.
const ENDLESS_BODY: usize = 1 << 30;

#[testkit::test]
fn arbitrary_responses_of_an_api_server_do_not_break_leaderrun() {
    fuzz("hostile API servers", 3, |mut random| {
        // One candidate runs for each kind of response, all at the same time and each with its own server.
        thread::scope(|scope| {
            let candidates = ALL_KINDS.map(|kind| {
                let random = random.fork();
                scope.spawn(move || run_candidate(kind, random))
            });
            let failures: Vec<_> = candidates.into_iter().filter_map(|candidate| candidate.join().err()).collect();
            if let Some(panic) = failures.into_iter().next() {
                std::panic::resume_unwind(panic);
            }
        });
    });
}

/// The kind of responses that a server sends.
#[derive(Clone, Copy, Debug)]
enum ResponseKind {
    /// Leases with hostile text and random changes.
    Leases,
    /// Errors that contain hostile text.
    Errors,
    /// Bodies and lines that do not end.
    Endless,
    /// Broken or unexpected HTTP.
    BrokenHttp,
}

const ALL_KINDS: [ResponseKind; 4] =
    [ResponseKind::Leases, ResponseKind::Errors, ResponseKind::Endless, ResponseKind::BrokenHttp];

fn run_candidate(kind: ResponseKind, mut random: Rng) {
    let port = Port::reserve();
    let directory = scratch::directory("hostile");
    let (config, command_ran) = (directory.join("kubeconfig"), directory.join("command-ran"));
    kubeconfig::write(&config, port.address(), ADMIN);
    let listener = runtime::enter(|| port.listen()).expect("the server can listen on the port");
    let server_random = random.fork();
    let server = runtime::spawn(async move {
        let (acceptor, mut random) = (TlsAcceptor::from(tls::server_config()), server_random);
        while let Ok(stream) = listener.accept().await {
            let (acceptor, random) = (acceptor.clone(), random.fork());
            tokio::spawn(serve(acceptor, stream, kind, random));
        }
    });
    let format = ["text", "json"][random.usize(..2)];
    let routing = [["--pod-label=role=leader", "--pod=a"], ["--service=web", "--port=80"]][random.usize(..2)];
    let mut child = Command::new(leaderrun())
        .args(["--lock", "default/job", "--log-format", format, "-v", "--kubeconfig"])
        .arg(&config)
        .args(routing)
        .args(["--lease-duration", "3s", "--renew-deadline", "1s500ms", "--retry-period", "100ms", "--", "touch"])
        .arg(&command_ran)
        .stderr(Stdio::piped())
        .spawn()
        .expect("leaderrun can be started");
    let log = read_log(&mut child);
    let start = Instant::now();
    let mut peak = 0;
    while start.elapsed() < DURATION {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let memory = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let memory = memory.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        peak = peak.max(memory.unwrap_or_default());
        // The test has failed already, so it stops before the machine runs out of memory.
        if peak > 4 * MAX_MEMORY {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let is_alive = child.try_wait().expect("the child can be waited for").is_none();
    if is_alive {
        kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("the child has not been reaped yet");
    }
    let status = child.wait().expect("the child can be waited for");
    server.abort();
    let log = log.join().expect("the reader of the log does not panic");
    let text = String::from_utf8(log).expect("the log is UTF-8");
    assert!(is_alive && status.signal() == Some(libc::SIGTERM), "{kind:?}: leaderrun ended with {status}:\n{text}");
    assert!(!command_ran.exists(), "{kind:?}: leaderrun ran the command:\n{text}");
    assert!(peak < MAX_MEMORY, "{kind:?}: leaderrun used {peak} KiB");
    let dangerous = text.lines().find(|line| line.chars().any(is_dangerous));
    assert!(dangerous.is_none(), "{kind:?}: leaderrun printed {dangerous:?}");
    for line in text.lines() {
        match format {
            "json" => {
                assert!(serde_json::from_str::<Value>(line).is_ok_and(|line| line["level"].is_string()), "{line}")
            }
            _ => assert!(
                (line.starts_with("leaderrun +") && line.contains("s: ")) || is_part_of_a_role(line),
                "a line is forged: {line:?}"
            ),
        }
    }
}

/// Returns whether a line may be part of the Role that is logged when a permission is missing.
fn is_part_of_a_role(line: &str) -> bool {
    const FIRST_WORDS: [&str; 5] = ["apiVersion:", "kind:", "metadata:", "rules:", "- apiGroups:"];
    line.starts_with("  ") || FIRST_WORDS.iter().any(|word| line.starts_with(word))
}

fn read_log(child: &mut Child) -> thread::JoinHandle<Vec<u8>> {
    let mut stderr = child.stderr.take().expect("stderr is piped");
    thread::spawn(move || {
        let mut log = Vec::new();
        let _ = stderr.read_to_end(&mut log);
        log
    })
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, kind: ResponseKind, mut random: Rng) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        request.extend(&buffer[..length]);
        let Some(end) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
        let is_watch = String::from_utf8_lossy(&request[..end]).contains("watch=");
        request.clear();
        if respond(&mut stream, kind, is_watch, &mut random).await.is_none() {
            return;
        }
    }
}

/// Sends one response. Returns `None` if the connection can no longer be used.
async fn respond(
    stream: &mut TlsStream<TcpStream>,
    kind: ResponseKind,
    is_watch: bool,
    random: &mut Rng,
) -> Option<()> {
    match kind {
        // Sometimes a read returns a held lock, so that leaderrun opens a watch.
        ResponseKind::Endless | ResponseKind::Errors if !is_watch && random.bool() => {
            send_response(stream, 200, &held_lease(random)).await
        }
        ResponseKind::Leases => {
            let mut lease = lease(random);
            for _ in 0..random.usize(..4) {
                hostile_input::mutate(random, &mut lease);
            }
            let body = if is_watch {
                format!("{}\n", json!({ "type": watch_type(random), "object": lease }))
            } else {
                lease.to_string()
            };
            send_response(stream, 200, &body).await
        }
        ResponseKind::Errors => {
            let code = [400, 401, 403, 404, 409, 410, 422, 429, 500, 503, 504][random.usize(..11)];
            // leaderrun would create a missing lock instead of reading more responses.
            let code = if code == 404 && !is_watch { 403 } else { code };
            let mut status = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                "message": hostile_input::text(random), "reason": hostile_input::text(random),
                "details": { "name": hostile_input::text(random), "retryAfterSeconds": random.i32(..) },
            });
            if random.u8(..3) == 0 {
                hostile_input::mutate(random, &mut status);
            }
            if is_watch && random.bool() {
                return send_response(stream, 200, &format!("{}\n", json!({ "type": "ERROR", "object": status })))
                    .await;
            }
            let body = if random.u8(..4) == 0 { hostile_input::text(random) } else { status.to_string() };
            send_response(stream, code, &body).await
        }
        ResponseKind::Endless => {
            let filler = ["[", "\"a\",", "\n", "{}\n", " "][random.usize(..5)].repeat(8192);
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await.ok()?;
            for _ in 0..ENDLESS_BODY / filler.len() {
                let chunk = format!("{:x}\r\n{filler}\r\n", filler.len());
                stream.write_all(chunk.as_bytes()).await.ok()?;
            }
            None
        }
        ResponseKind::BrokenHttp => send_broken_http(stream, random).await,
    }
}

async fn send_broken_http(stream: &mut TlsStream<TcpStream>, random: &mut Rng) -> Option<()> {
    let hostile = hostile_input::text(random).replace(['\r', '\n', '\0'], "~");
    match random.u8(..6) {
        0 => stream.write_all(hostile_input::text(random).as_bytes()).await.ok()?,
        1 => {
            let head =
                format!("HTTP/1.1 200 {hostile}\r\nx-hostile: {hostile}\r\n{}\r\n", "x-long: y\r\n".repeat(100_000));
            stream.write_all(head.as_bytes()).await.ok()?;
        }
        2 => {
            let head = format!("HTTP/1.1 302 Found\r\nlocation: https://{hostile}/\r\ncontent-length: 0\r\n\r\n");
            return stream.write_all(head.as_bytes()).await.ok();
        }
        3 => {
            let head = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\nnogzi";
            return stream.write_all(head.as_bytes()).await.ok();
        }
        4 => {
            for byte in b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n{" {
                stream.write_all(&[*byte]).await.ok()?;
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        }
        _ => stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.ok()?,
    }
    None
}

/// Sends a well-formed response.
async fn send_response(stream: &mut TlsStream<TcpStream>, code: u16, body: &str) -> Option<()> {
    let head = format!(
        "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\nretry-after: 0\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(body.as_bytes()).await.ok()
}

fn watch_type(random: &mut Rng) -> String {
    let types = ["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"];
    if random.u8(..6) == 0 { hostile_input::text(random) } else { types[random.usize(..5)].to_owned() }
}

/// Returns a Lease with valid times, so that leaderrun treats it as held. Its other text is still hostile.
fn held_lease(random: &mut Rng) -> String {
    let mut lease = lease(random);
    lease["spec"]["renewTime"] = json!("2026-01-01T00:00:00.000000Z");
    lease["spec"]["acquireTime"] = Value::Null;
    lease.to_string()
}

/// Returns a Lease with random times and hostile text. Its lease duration of one hour is longer than the test.
fn lease(random: &mut Rng) -> Value {
    let note_length = if random.u8(..5) == 0 { 1_000_000 } else { 1 };
    json!({
        "kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
        "metadata": {
            "name": "job", "namespace": "default", "uid": hostile_input::text(random), "resourceVersion": hostile_input::text(random),
            "annotations": { "leaderrun/run": hostile_input::text(random), "note": "x".repeat(note_length) },
        },
        "spec": {
            "holderIdentity": format!("somebody{}", hostile_input::text(random)),
            "leaseDurationSeconds": 3600,
            "leaseTransitions": random.i32(..),
            "acquireTime": hostile_input::time(random).to_string(),
            "renewTime": format!("{:.6}", hostile_input::time(random)),
        },
    })
}
