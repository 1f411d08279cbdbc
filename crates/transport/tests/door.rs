//! Who gets in: addresses, tokens, versions, TLS, and the patience of a listener.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rasker_transport::{
    Address, Connection, Credentials, Fingerprint, LinkOptions, Listener, ListenerOptions, Peer,
    TlsClient, TlsServer, Token, TransportError, check_exposure, connect,
};

const PATIENCE: Duration = Duration::from_secs(10);

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("it hangs") })
}

fn credentials(byte: u8) -> Credentials {
    Credentials { token: Token::from_bytes([byte; 32]) }
}

async fn listen(options: ListenerOptions) -> Listener {
    let reply = |hello: &Bytes, _: &Peer| match &hello[..] {
        b"refuse me" => Err("no more than three workers".to_string()),
        _ => Ok(Bytes::from_static(b"welcome")),
    };
    let address = "127.0.0.1:0".parse().unwrap();
    Listener::bind(&address, credentials(1), None, options, reply).await.unwrap()
}

async fn ask(
    listener: &Listener,
    token: u8,
    hello: &'static str,
) -> Result<(Connection, Bytes), TransportError> {
    let (address, credentials) = (listener.local_address(), credentials(token));
    connect(address, &credentials, hello.into(), None, PATIENCE, LinkOptions::default()).await
}

/// A raw client: sends bytes, and returns what comes back until the listener closes.
async fn talk(listener: &Listener, bytes: &'static [u8]) -> Vec<u8> {
    let Address::Tcp { port, .. } = *listener.local_address() else { panic!("not TCP") };
    let talking = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    });
    talking.await.unwrap()
}

#[test]
fn a_wrong_token_is_refused_on_both_sides() {
    run(async {
        let listener = listen(ListenerOptions::default()).await;
        let (asked, accepted) = tokio::join!(ask(&listener, 2, "hello"), listener.accept());
        let (theirs, ours) = (asked.err().unwrap(), accepted.err().unwrap());
        assert!(matches!(theirs, TransportError::Token { .. }), "{theirs}");
        assert!(matches!(ours, TransportError::Token { .. }), "{ours}");
        assert!(theirs.to_string().contains("same token file"), "{theirs}");
        // The next one with the right token gets in.
        let (asked, accepted) = tokio::join!(ask(&listener, 1, "hello"), listener.accept());
        assert_eq!(&asked.unwrap().1[..], b"welcome");
        assert_eq!(&accepted.unwrap().1[..], b"hello");
    });
}

#[test]
fn a_refusal_says_why() {
    run(async {
        let listener = listen(ListenerOptions::default()).await;
        let (asked, accepted) = tokio::join!(ask(&listener, 1, "refuse me"), listener.accept());
        let error = asked.err().unwrap();
        assert!(
            matches!(&error, TransportError::Refused { reason, .. } if reason.contains("three"))
        );
        assert!(accepted.err().unwrap().to_string().contains("three workers"));
    });
}

#[test]
fn another_version_is_named_on_both_sides() {
    run(async {
        let listener = listen(ListenerOptions::default()).await;
        let (answer, accepted) = tokio::join!(talk(&listener, b"RSKR\x63\x00"), listener.accept());
        assert_eq!(answer, b"RSKR\x01\x00");
        let error = accepted.err().unwrap();
        assert!(matches!(error, TransportError::Version { ours: 1, theirs: 99, .. }), "{error}");
        // A client that meets a newer server.
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let serving = async {
            let (mut stream, _) = server.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"RSKR\x02\x00").await.unwrap();
            stream
        };
        let address = Address::Tcp { host: "127.0.0.1".into(), port };
        let credentials = credentials(1);
        let link = LinkOptions::default();
        let connecting = connect(&address, &credentials, Bytes::new(), None, PATIENCE, link);
        let error = tokio::join!(connecting, serving).0.err().unwrap();
        assert!(matches!(error, TransportError::Version { ours: 1, theirs: 2, .. }), "{error}");
    });
}

#[test]
fn other_programs_are_told_apart() {
    run(async {
        let listener = listen(ListenerOptions::default()).await;
        let (answer, accepted) =
            tokio::join!(talk(&listener, b"GET / HTTP/1.1\r\n\r\n"), listener.accept());
        assert!(answer.is_empty());
        let error = accepted.err().unwrap();
        assert!(matches!(&error, TransportError::NotRasker { found, .. } if found.contains("GET")));
        let long_hello = b"RSKR\x01\x0012345678901234567890123456789012\xff\xff\xff\xff";
        let (answer, accepted) = tokio::join!(talk(&listener, long_hello), listener.accept());
        assert!(answer.is_empty());
        assert!(matches!(accepted, Err(TransportError::Limit { .. })));
    });
}

#[test]
fn a_slow_peer_is_sent_away() {
    run(async {
        let handshake_timeout = Duration::from_millis(300);
        let listener =
            listen(ListenerOptions { handshake_timeout, ..ListenerOptions::default() }).await;
        let started = Instant::now();
        let slow = async {
            assert!(talk(&listener, b"RSKR\x01").await.is_empty());
            started.elapsed()
        };
        let fast = async {
            let connection = ask(&listener, 1, "hello").await.unwrap();
            (started.elapsed(), connection)
        };
        let (slow, (fast, _connection)) = tokio::join!(slow, fast);
        assert!(fast < handshake_timeout, "the slow peer held up another: {fast:?}");
        assert!(slow >= handshake_timeout && slow < 8 * handshake_timeout, "{slow:?}");
        assert!(listener.accept().await.is_ok());
        let error = listener.accept().await.err().unwrap();
        assert!(matches!(error, TransportError::Slow { .. }), "{error}");
    });
}

#[test]
fn connections_beyond_the_pending_ones_are_closed_at_once() {
    run(async {
        let options = ListenerOptions { n_pending_max: 3, ..ListenerOptions::default() };
        let listener = listen(options).await;
        let Address::Tcp { port, .. } = *listener.local_address() else { panic!("not TCP") };
        let mut slow = Vec::new();
        for _ in 0..3 {
            slow.push(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(ask(&listener, 1, "hello").await.is_err());
        slow.clear();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(ask(&listener, 1, "hello").await.is_ok());
    });
}

#[test]
fn the_token_never_crosses_the_wire() {
    run(async {
        let listener = listen(ListenerOptions::default()).await;
        let Address::Tcp { port, .. } = *listener.local_address() else { panic!("not TCP") };
        let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address =
            Address::Tcp { host: "127.0.0.1".into(), port: proxy.local_addr().unwrap().port() };
        let recording = tokio::spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let (mut client, _) = proxy.accept().await.unwrap();
            let mut server = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let mut record: Vec<u8> = Vec::new();
            let (mut a, mut b) = ([0u8; 4096], [0u8; 4096]);
            loop {
                tokio::select! {
                    n = client.read(&mut a) => match n {
                        Ok(n @ 1..) => {
                            record.extend(&a[..n]);
                            server.write_all(&a[..n]).await.unwrap();
                        }
                        _ => return record,
                    },
                    n = server.read(&mut b) => match n {
                        Ok(n @ 1..) => {
                            record.extend(&b[..n]);
                            client.write_all(&b[..n]).await.unwrap();
                        }
                        _ => return record,
                    },
                }
            }
        });
        let credentials = credentials(1);
        let link = LinkOptions::default();
        let hello = Bytes::from_static(b"hello");
        let connecting = connect(&address, &credentials, hello, None, PATIENCE, link);
        let (connected, accepted) = tokio::join!(connecting, listener.accept());
        drop((connected.unwrap(), accepted.unwrap()));
        let record = recording.await.unwrap();
        assert!(record.len() > 150, "{} bytes were seen", record.len());
        // Eight bytes of the token in a row would be a leak; by chance they do not happen.
        assert!(!record.windows(8).any(|window| window == [1; 8]));
    });
}

#[test]
fn tls_needs_the_right_certificate() {
    run(async {
        let server = TlsServer::self_signed(&["localhost", "127.0.0.1"]).unwrap();
        let other = TlsServer::self_signed(&["localhost"]).unwrap();
        let address = "tls://127.0.0.1:0".parse().unwrap();
        let options = ListenerOptions::default();
        let reply = |_: &Bytes, _: &Peer| Ok(Bytes::new());
        let bound = Listener::bind(&address, credentials(1), Some(&server), options, reply).await;
        let listener = bound.unwrap();
        let address = listener.local_address().clone();
        let credentials = credentials(1);
        let ask = |tls: TlsClient| {
            let (address, credentials) = (address.clone(), credentials.clone());
            async move {
                let link = LinkOptions::default();
                connect(&address, &credentials, Bytes::new(), Some(&tls), PATIENCE, link).await
            }
        };
        let text = server.fingerprint().to_string();
        let right = TlsClient::pinned(text.parse::<Fingerprint>().unwrap()).unwrap();
        let (asked, accepted) = tokio::join!(ask(right), listener.accept());
        assert!(asked.is_ok() && accepted.is_ok());
        let wrong = TlsClient::pinned(other.fingerprint()).unwrap();
        let (asked, accepted) = tokio::join!(ask(wrong), listener.accept());
        assert!(asked.is_err() && accepted.is_err());
        // Plain TCP to a TLS port.
        let Address::Tls { host, port } = address.clone() else { panic!("not TLS") };
        let plain = Address::Tcp { host, port };
        let link = LinkOptions::default();
        let connecting = connect(&plain, &credentials, Bytes::new(), None, PATIENCE, link);
        let (asked, accepted) = tokio::join!(connecting, listener.accept());
        assert!(asked.is_err() && accepted.is_err());
    });
}

#[test]
fn a_unix_socket_is_private_and_goes_with_its_listener() {
    run(async {
        let path = std::env::temp_dir().join(format!("rasker-door-{}", std::process::id()));
        let address = Address::Unix(path.clone());
        let reply = |_: &Bytes, _: &Peer| Ok(Bytes::new());
        let options = ListenerOptions::default();
        // A socket that a dead process has left is replaced.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let bound = Listener::bind(&address, credentials(1), None, options.clone(), reply).await;
        let listener = bound.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let second = Listener::bind(&address, credentials(1), None, options, reply).await;
        assert!(matches!(second, Err(TransportError::Listen { .. })));
        assert!(ask(&listener, 1, "hello").await.is_ok());
        drop(listener);
        assert!(!path.exists());
    });
}

#[test]
fn addresses_are_read_and_written() {
    let same = ["tcp://host:1", "tls://10.0.0.1:65535", "unix:///run/x.sock", "tcp://[::1]:80"];
    for text in same {
        assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
    }
    assert_eq!("host:8786".parse::<Address>().unwrap().to_string(), "tcp://host:8786");
    let wrong = [
        "",
        "host",
        "host:",
        "host:x",
        "host:70000",
        ":80",
        "http://host:80",
        "unix://x",
        "::1:80",
        "tcp://[::1:80",
        "tcp://user@host:80",
    ];
    for text in wrong {
        let error = text.parse::<Address>().expect_err(text).to_string();
        assert!(error.contains("tcp://host:port"), "{error}");
    }
}

#[test]
fn only_loopback_is_open_without_encryption() {
    let check =
        |text: &str, tls, insecure| check_exposure(&text.parse().unwrap(), tls, insecure).is_ok();
    for text in
        ["127.0.0.1:1", "localhost:1", "[::1]:1", "127.8.8.8:1", "tls://0.0.0.0:1", "unix:///x"]
    {
        assert!(check(text, false, false), "{text}");
    }
    for text in ["0.0.0.0:1", "192.168.0.1:1", "host:1", "[::]:1", "localhost.evil.org:1"] {
        assert!(!check(text, false, false), "{text}");
        assert!(check(text, true, false) && check(text, false, true), "{text}");
    }
}

#[test]
fn a_token_file_is_private_and_its_token_is_never_shown() {
    let path = std::env::temp_dir().join(format!("rasker-token-{}", std::process::id()));
    let token = Token::generate().unwrap();
    token.to_file(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Token::from_file(&path).unwrap().to_hex(), token.to_hex());
    assert!(token.to_file(&path).is_err(), "an existing file is not overwritten");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    let error = Token::from_file(&path).unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
    std::fs::remove_file(&path).unwrap();
    assert!(!format!("{:?}", Credentials { token: token.clone() }).contains(&token.to_hex()[..8]));
    assert_ne!(token.to_hex(), Token::generate().unwrap().to_hex());
    assert!(Token::from_hex("12").is_err());
}
