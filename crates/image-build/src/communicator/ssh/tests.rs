//! The communicator against a real SSH server in this process that hands its commands to this machine's `bash`.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::Mutex;

use russh::server::{self, Auth, Msg, Server as _, Session};
use russh::{Channel, ChannelId};
use secrecy::ExposeSecret as _;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::ChildStdin;

use super::*;
use crate::communicator::BuildKeys;

#[derive(Clone)]
struct TestServer {
    login: PublicKey,
    password: String,
}

struct Connection {
    server: TestServer,
    stdin: HashMap<ChannelId, ChildStdin>,
}

impl server::Server for TestServer {
    type Handler = Connection;

    fn new_client(&mut self, _: Option<std::net::SocketAddr>) -> Connection {
        Connection {
            server: self.clone(),
            stdin: HashMap::new(),
        }
    }
}

impl server::Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, user: &str, key: server::VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        let known = user == "root" && key.public_key.key_data() == self.server.login.key_data();
        Ok(if known { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        let known = user == "root" && password == self.server.password;
        Ok(if known { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: server::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, line: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        let line = String::from_utf8_lossy(line).into_owned();
        let handle = session.handle();
        if line == "drop-connection" {
            return Err(russh::Error::Disconnect);
        }
        session.channel_success(id)?;
        let mut child = tokio::process::Command::new("bash")
            .args(["-c", &line])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        self.stdin.insert(id, child.stdin.take().expect("piped"));
        let (mut out, mut err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        tokio::spawn(async move {
            let from_out = async {
                let mut buffer = vec![0; 30_000];
                while let Ok(n @ 1..) = out.read(&mut buffer).await {
                    let _ = handle.data(id, Bytes::copy_from_slice(&buffer[..n])).await;
                }
            };
            let from_err = async {
                let mut buffer = vec![0; 30_000];
                while let Ok(n @ 1..) = err.read(&mut buffer).await {
                    let _ = handle.extended_data(id, 1, Bytes::copy_from_slice(&buffer[..n])).await;
                }
            };
            tokio::join!(from_out, from_err);
            let ended = child.wait().await.expect("waits");
            match (ended.code(), std::os::unix::process::ExitStatusExt::signal(&ended)) {
                (Some(code), _) => {
                    let _ = handle
                        .exit_status_request(id, u32::try_from(code).expect("small"))
                        .await;
                }
                (None, Some(9)) => {
                    let _ = handle
                        .exit_signal_request(id, Sig::KILL, false, String::new(), String::new())
                        .await;
                }
                (None, other) => panic!("unexpected end: {other:?}"),
            }
            let _ = handle.eof(id).await;
            let _ = handle.close(id).await;
        });
        Ok(())
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], _: &mut Session) -> Result<(), Self::Error> {
        if let Some(stdin) = self.stdin.get_mut(&id)
            && stdin.write_all(data).await.is_err()
        {
            self.stdin.remove(&id);
        }
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.stdin.remove(&id);
        Ok(())
    }
}

/// A server on a free port, and the target that fits it.
async fn start() -> (SshTarget, BuildKeys) {
    let keys = BuildKeys::generate("test").unwrap();
    let config = server::Config {
        keys: vec![PrivateKey::from_openssh(keys.host_private_file().unwrap().expose_secret()).unwrap()],
        auth_rejection_time: Duration::ZERO,
        ..server::Config::default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut server = TestServer {
        login: keys.login().public_key().clone(),
        password: "hunter2".to_owned(),
    };
    tokio::spawn(async move { server.run_on_socket(Arc::new(config), &listener).await });
    let target = SshTarget {
        host: "127.0.0.1".to_owned(),
        port,
        user: "root".to_owned(),
        auth: SshAuth::Key(keys.login()),
        host_key: keys.host_public().clone(),
        attempt_timeout: Duration::from_secs(20),
    };
    (target, keys)
}

async fn run(
    ssh: &SshCommunicator,
    command: &Command,
) -> (Result<ExitStatus, CommunicatorError>, Vec<(OutputStream, String)>) {
    let seen = Mutex::new(Vec::new());
    let on_line = |stream: OutputStream, line: &str| seen.lock().unwrap().push((stream, line.to_owned()));
    let ended = ssh.exec(command, &on_line).await;
    (ended, seen.into_inner().unwrap())
}

#[tokio::test]
async fn commands_run_with_their_words_input_and_status() {
    let (target, _) = start().await;
    let ssh = SshCommunicator::connect(target).await.unwrap();
    assert!(ssh.describe().starts_with("ssh root@127.0.0.1:"));

    let (ended, lines) = run(&ssh, &Command::new(["printf", "%s|", "a b", "it's", "$HOME", ""])).await;
    assert_eq!(ended.unwrap(), ExitStatus::Code(0));
    assert_eq!(lines, [(OutputStream::Stdout, "a b|it's|$HOME||".to_owned())]);

    let (ended, mut lines) = run(&ssh, &Command::sh("echo out; echo \"$1\" >&2; exit 7", ["err or"])).await;
    assert_eq!(ended.unwrap(), ExitStatus::Code(7));
    lines.sort_by_key(|(stream, _)| *stream == OutputStream::Stderr);
    assert_eq!(
        lines,
        [
            (OutputStream::Stdout, "out".to_owned()),
            (OutputStream::Stderr, "err or".to_owned())
        ]
    );

    let (ended, _) = run(&ssh, &Command::sh("kill -9 $$", [])).await;
    assert_eq!(ended.unwrap(), ExitStatus::Signal("KILL".to_owned()));

    let mut command = Command::new(["cat"]).stdin(Source::Bytes(Bytes::from_static(b"from stdin")));
    command.env.insert("X".to_owned(), "y".to_owned());
    let (ended, lines) = run(&ssh, &command).await;
    assert_eq!(ended.unwrap(), ExitStatus::Code(0));
    assert_eq!(lines, [(OutputStream::Stdout, "from stdin".to_owned())]);
}

#[tokio::test]
async fn a_command_that_ignores_its_input_still_ends() {
    let (target, _) = start().await;
    let ssh = SshCommunicator::connect(target).await.unwrap();
    let big = Source::Bytes(vec![b'x'; 8 << 20].into());
    let (ended, lines) = run(&ssh, &Command::sh("exec <&-; echo done", []).stdin(big)).await;
    assert_eq!(ended.unwrap(), ExitStatus::Code(0));
    assert_eq!(lines, [(OutputStream::Stdout, "done".to_owned())]);
}

#[tokio::test]
async fn files_travel_both_ways() {
    let (target, _) = start().await;
    let ssh = SshCommunicator::connect(target).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();

    let content: Bytes = (0..3_000_017u32)
        .map(|i| u8::try_from(i % 251).unwrap())
        .collect::<Vec<_>>()
        .into();
    let local = folder.path().join("local");
    std::fs::write(&local, &content).unwrap();
    for (name, source) in [
        ("from bytes", Source::Bytes(content.clone())),
        ("it's a file", Source::File(local)),
    ] {
        ssh.upload(&Upload {
            source,
            destination: path(name),
            mode: 0o640,
        })
        .await
        .unwrap();
        assert_eq!(std::fs::read(path(name)).unwrap(), content, "{name}");
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path(name)).unwrap().permissions());
        assert_eq!(mode & 0o7777, 0o640, "{name}");
        assert_eq!(ssh.download(&path(name), 4_000_000).await.unwrap(), content, "{name}");
    }
    ssh.upload(&Upload {
        source: Source::Bytes(Bytes::new()),
        destination: path("empty"),
        mode: 0o600,
    })
    .await
    .unwrap();
    assert_eq!(std::fs::read(path("empty")).unwrap(), b"");
    let mut left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(
        left,
        ["empty", "from bytes", "it's a file", "local"],
        "no .part file stays"
    );

    let error = ssh.download(&path("local"), 1000).await.unwrap_err();
    assert!(error.to_string().contains("larger than 1000 bytes"), "{error}");
    let error = ssh.download(&path("absent"), 1000).await.unwrap_err();
    assert!(
        matches!(&error, CommunicatorError::Download { reason, .. } if reason.contains("No such file")),
        "{error}"
    );
    let nowhere = Upload {
        source: Source::Bytes(content),
        destination: path("no/such/folder"),
        mode: 0o600,
    };
    let error = ssh.upload(&nowhere).await.unwrap_err();
    assert!(matches!(error, CommunicatorError::Upload { .. }), "{error}");
    let absent = Upload {
        source: Source::File("/no/such/file".into()),
        destination: path("x"),
        mode: 0o600,
    };
    assert!(matches!(
        ssh.upload(&absent).await.unwrap_err(),
        CommunicatorError::Local { .. }
    ));
}

#[tokio::test]
async fn each_cause_of_a_failed_connection_has_its_own_error() {
    let (target, keys) = start().await;

    let other = BuildKeys::generate("other").unwrap();
    let wrong_host = SshTarget {
        host_key: other.host_public().clone(),
        ..target.clone()
    };
    let error = SshCommunicator::connect(wrong_host).await.unwrap_err();
    assert!(
        matches!(&error, CommunicatorError::HostKey { presented, .. } if *presented == keys.host_public().fingerprint(HashAlg::Sha256).to_string()),
        "{error}"
    );
    assert!(error.is_settled());

    let wrong_key = SshTarget {
        auth: SshAuth::Key(other.login()),
        ..target.clone()
    };
    let error = SshCommunicator::connect(wrong_key).await.unwrap_err();
    assert!(
        matches!(&error, CommunicatorError::Auth { method: "key", user, .. } if user == "root"),
        "{error}"
    );

    let password = |text: &str| SshTarget {
        auth: SshAuth::Password(text.to_owned().into()),
        ..target.clone()
    };
    let error = SshCommunicator::connect(password("canary-secret")).await.unwrap_err();
    assert!(
        matches!(error, CommunicatorError::Auth { method: "password", .. }),
        "{error}"
    );
    assert!(
        !format!("{error} {error:?} {:?}", password("canary-secret")).contains("canary"),
        "{error:?}"
    );
    SshCommunicator::connect(password("hunter2")).await.unwrap();

    // Bound, so that nobody else gets it, and nobody listens.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let error = SshCommunicator::connect(SshTarget {
        port: closed.local_addr().unwrap().port(),
        ..target.clone()
    })
    .await
    .unwrap_err();
    assert!(matches!(error, CommunicatorError::Refused { .. }), "{error}");
    assert!(error.is_lost() && !error.is_settled());

    // Accepts and says nothing: the kernel's backlog answers for it.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute = SshTarget {
        port: silent.local_addr().unwrap().port(),
        attempt_timeout: Duration::from_millis(100),
        ..target.clone()
    };
    let error = SshCommunicator::connect(mute).await.unwrap_err();
    assert!(matches!(error, CommunicatorError::NoAnswer { .. }), "{error}");

    let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = web.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = web.accept().await.unwrap();
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    });
    let error = SshCommunicator::connect(SshTarget { port, ..target })
        .await
        .unwrap_err();
    assert!(matches!(error, CommunicatorError::Handshake { .. }), "{error}");
}

#[tokio::test]
async fn a_lost_connection_is_seen_and_made_anew() {
    let (target, _) = start().await;
    let ssh = SshCommunicator::connect(target).await.unwrap();
    let (ended, _) = run(&ssh, &Command::new(["drop-connection"])).await;
    let error = ended.unwrap_err();
    assert!(
        matches!(error, CommunicatorError::Lost { .. }) && error.is_lost(),
        "{error}"
    );
    let (ended, _) = run(&ssh, &Command::new(["true"])).await;
    assert!(ended.unwrap_err().is_lost());
    ssh.reconnect().await.unwrap();
    let (ended, _) = run(&ssh, &Command::new(["true"])).await;
    assert_eq!(ended.unwrap(), ExitStatus::Code(0));
    ssh.close().await;
    assert!(run(&ssh, &Command::new(["true"])).await.0.unwrap_err().is_lost());
}

#[tokio::test]
async fn a_command_has_a_time_limit() {
    let (target, _) = start().await;
    let ssh = SshCommunicator::connect(target).await.unwrap();
    let command = Command::sh("echo begun; exec sleep 1000", []).timeout(Duration::from_secs(10));
    let (ended, lines) = run(&ssh, &command).await;
    let error = ended.unwrap_err();
    assert!(
        matches!(&error, CommunicatorError::CommandTimeout { program, .. } if program == "sh"),
        "{error}"
    );
    assert_eq!(lines, [(OutputStream::Stdout, "begun".to_owned())]);
}
