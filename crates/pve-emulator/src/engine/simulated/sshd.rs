//! The guest's SSH server: russh in front, the guest's own users, keys and shell behind.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddrV4;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use russh::keys::{PrivateKey, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Config, Handle, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, MethodKind, MethodSet, Sig, SshId};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::crypt;
use super::files::Kind;
use super::host::Host;
use super::shell::Shell;
use super::shell::io::{Input, Io, Output, Stream};
use super::system::System;

/// Data messages that may wait for a command to read them, 32 KiB each: a command that does not read holds its client
/// back by the window, as a real pipe would.
const STDIN_MESSAGES: usize = 64;

/// Binds the guest's address without listening: connections are refused until sshd is up.
///
/// # Errors
/// Somebody else holds the address.
pub(super) fn reserve(address: SocketAddrV4) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // A guest that comes back after a reboot must not wait for the connections of its former life to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address.into())?;
    Ok(socket)
}

/// Accepts connections until `stop`; they go on until `cancel`, as sessions outlive a stopped sshd.service.
pub(super) async fn serve(
    listener: TcpListener,
    host: Arc<Host>,
    keys: Vec<PrivateKey>,
    stop: CancellationToken,
    cancel: CancellationToken,
) {
    let config = Arc::new(config(keys));
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = stream else {
            // Out of file descriptors, or the client was gone at once: the next one may fare better.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // A client that turns this down only loses some speed.
        let _ = stream.set_nodelay(true);
        let (config, host, cancel) = (Arc::clone(&config), Arc::clone(&host), cancel.clone());
        tokio::spawn(async move {
            let connection = host.connection(&cancel);
            let stream = Mortal {
                stream,
                end: Box::pin(connection.clone().cancelled_owned()),
            };
            let server = Server {
                host,
                cancel,
                user: None,
                channels: BTreeMap::new(),
            };
            match russh::server::run_stream(config, stream, server).await {
                Ok(session) => {
                    if let Err(error) = session.await {
                        tracing::debug!(%error, "a session of a simulated sshd ended");
                    }
                }
                Err(error) => tracing::debug!(%error, "a simulated sshd refused a connection"),
            }
            // One that has ended is not kept on the list.
            connection.cancel();
        });
    }
}

fn config(keys: Vec<PrivateKey>) -> Config {
    let mut methods = MethodSet::empty();
    methods.push(MethodKind::PublicKey);
    methods.push(MethodKind::Password);
    Config {
        server_id: SshId::Standard("SSH-2.0-OpenSSH_8.7".into()),
        methods,
        keys,
        // Guests live on loopback: nobody guesses passwords against them, and tests try wrong ones.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        // MaxAuthTries of OpenSSH.
        max_auth_attempts: 6,
        inactivity_timeout: None,
        nodelay: true,
        ..Config::default()
    }
}

/// A connection that ends when its guest does.
struct Mortal {
    stream: TcpStream,
    end: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl AsyncRead for Mortal {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Mortal {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Value of an sshd option: the first file that sets it decides, and the folder is read before the main file.
fn sshd_option(system: &System, name: &str) -> Option<String> {
    let mut files = system.files.glob("/etc/ssh/sshd_config.d/*.conf");
    files.push("/etc/ssh/sshd_config".to_owned());
    files.iter().find_map(|file| {
        system.files.text(file).lines().find_map(|line| {
            let mut words = line.split([' ', '\t', '=']).filter(|word| !word.is_empty());
            words.next().filter(|word| word.eq_ignore_ascii_case(name))?;
            words.next().map(str::to_ascii_lowercase)
        })
    })
}

/// Whether sshd lets this user in with a key it has proven to hold.
fn key_opens(system: &System, user: &str, key: &PublicKey) -> bool {
    let Some(account) = system.user(user) else { return false };
    if sshd_option(system, "PubkeyAuthentication").as_deref() == Some("no") || !has_shell(&account.shell) {
        return false;
    }
    if user == "root" && sshd_option(system, "PermitRootLogin").as_deref() == Some("no") {
        return false;
    }
    let file = format!("{}/.ssh/authorized_keys", account.home);
    // StrictModes: nobody else may be able to write the file or what it lies in.
    let strict = [account.home.clone(), format!("{}/.ssh", account.home), file.clone()]
        .iter()
        .all(|path| {
            system
                .files
                .get(path)
                .is_ok_and(|node| node.mode & 0o022 == 0 && (node.owner == account.name || node.owner == "root"))
        });
    let is_file = system
        .files
        .get(&file)
        .is_ok_and(|node| matches!(node.kind, Kind::File(_)));
    strict
        && is_file
        && system.files.text(&file).lines().any(|line| {
            // Options may stand before the key; the key begins at its type.
            let start = ["ssh-", "ecdsa-", "sk-"]
                .iter()
                .filter_map(|kind| line.find(kind))
                .min();
            start
                .and_then(|at| PublicKey::from_openssh(&line[at..]).ok())
                .is_some_and(|known| known.key_data() == key.key_data())
        })
}

/// Whether sshd lets this user in with a password. EL9 refuses root's unless told otherwise.
fn password_opens(system: &System, user: &str, password: &str) -> bool {
    let Some(account) = system.user(user) else { return false };
    if sshd_option(system, "PasswordAuthentication").as_deref() == Some("no") || !has_shell(&account.shell) {
        return false;
    }
    if user == "root" && sshd_option(system, "PermitRootLogin").as_deref() != Some("yes") {
        return false;
    }
    system
        .password_hash(user)
        .is_some_and(|hash| crypt::verify(password, &hash))
}

fn has_shell(shell: &str) -> bool {
    !shell.ends_with("nologin") && !shell.ends_with("/false")
}

/// One connection.
struct Server {
    host: Arc<Host>,
    cancel: CancellationToken,
    user: Option<String>,
    channels: BTreeMap<ChannelId, ServerChannel>,
}

#[derive(Default)]
struct ServerChannel {
    env: BTreeMap<String, String>,
    /// To the command's standard input; dropped at end of file.
    stdin: Option<mpsc::Sender<Bytes>>,
    /// Ends the command; the signal it dies of.
    kill: Option<mpsc::UnboundedSender<Sig>>,
}

impl Server {
    fn start(&mut self, id: ChannelId, command: Option<Vec<u8>>, session: &mut Session) -> Result<(), russh::Error> {
        let (Some(user), Some(channel)) = (self.user.clone(), self.channels.get_mut(&id)) else {
            return session.channel_failure(id);
        };
        if channel.stdin.is_some() || channel.kill.is_some() {
            return session.channel_failure(id);
        }
        let Some(mut shell) = Shell::login(&self.host, &user) else {
            return session.channel_failure(id);
        };
        shell.export(std::mem::take(&mut channel.env));
        session.channel_success(id)?;
        let (stdin, receiver) = mpsc::channel(STDIN_MESSAGES);
        let (kill, killed) = mpsc::unbounded_channel();
        channel.stdin = Some(stdin);
        channel.kill = Some(kill);
        // The command's task is not the connection's: as on a real system it goes on when the client is gone, and ends
        // with the guest.
        let handle = session.handle();
        let cancel = self.cancel.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = run(shell, command, receiver, killed, handle, id) => {}
            }
        });
        Ok(())
    }
}

/// Runs a command, or a shell on standard input, and reports as OpenSSH does: output, end of file, exit status, close.
async fn run(
    mut shell: Shell,
    command: Option<Vec<u8>>,
    stdin: mpsc::Receiver<Bytes>,
    mut killed: mpsc::UnboundedReceiver<Sig>,
    handle: Handle,
    id: ChannelId,
) {
    let (sender, mut output) = mpsc::unbounded_channel();
    let io = Io {
        stdin: Input::stream(stdin),
        stdout: Output::Channel(sender.clone(), Stream::Out),
        stderr: Output::Channel(sender, Stream::Err),
    };
    let run = async move {
        let text = match command {
            Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            // No terminal: what comes in on stdin is the script, as for `ssh host < script`.
            None => "bash -s".to_owned(),
        };
        tokio::select! {
            code = shell.run(&text, &io) => Ok(code),
            Some(signal) = killed.recv() => Err(signal),
        }
    };
    let forward = async {
        while let Some((stream, bytes)) = output.recv().await {
            let sent = match stream {
                Stream::Out => handle.data(id, bytes).await.is_ok(),
                Stream::Err => handle.extended_data(id, 1, bytes).await.is_ok(),
            };
            if !sent {
                // The client is gone; what is printed now goes nowhere, and the command goes on.
                output.close();
            }
        }
    };
    let (end, ()) = tokio::join!(run, forward);
    // Each of these fails only when the client is gone, and then nobody wants to know.
    let _ = handle.eof(id).await;
    let _ = match end {
        Ok(code) => handle.exit_status_request(id, (code & 0xff).cast_unsigned()).await,
        Err(signal) => {
            handle
                .exit_signal_request(id, signal, false, String::new(), String::new())
                .await
        }
    };
    let _ = handle.close(id).await;
}

impl Handler for Server {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: russh::server::PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(if key_opens(&self.host.system(), user, offer.public_key) {
            Auth::Accept
        } else {
            Auth::reject()
        })
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        if key_opens(&self.host.system(), user, key.public_key) {
            self.user = Some(user.to_owned());
            return Ok(Auth::Accept);
        }
        Ok(Auth::reject())
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        if password_opens(&self.host.system(), user, password) {
            self.user = Some(user.to_owned());
            return Ok(Auth::Accept);
        }
        Ok(Auth::reject())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.insert(channel.id(), ServerChannel::default());
        reply.accept().await;
        Ok(())
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        // AcceptEnv of EL9 lets the locale through and nothing else.
        let accepted = name == "LANG" || name.starts_with("LC_") || name == "LANGUAGE" || name == "XMODIFIERS";
        match self.channels.get_mut(&id).filter(|_| accepted) {
            Some(channel) => {
                channel.env.insert(name.to_owned(), value.to_owned());
                session.channel_success(id)
            }
            None => session.channel_failure(id),
        }
    }

    async fn exec_request(&mut self, id: ChannelId, data: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        self.start(id, Some(data.to_vec()), session)
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        self.start(id, None, session)
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(russh::Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        // A terminal would mix the output streams and echo; commands here need none, but clients such as Packer ask.
        session.channel_success(id)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        _name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], _session: &mut Session) -> Result<(), Self::Error> {
        if let Some(stdin) = self.channels.get(&id).and_then(|channel| channel.stdin.clone()) {
            // Waiting here holds back the whole connection until the command reads on; its output does not pass
            // through here, so the two cannot wait for each other. A command that has ended reads nothing more.
            let _ = stdin.send(Bytes::copy_from_slice(data)).await;
        }
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), Self::Error> {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.stdin = None;
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), Self::Error> {
        self.channels.remove(&id);
        Ok(())
    }

    async fn signal(&mut self, id: ChannelId, signal: Sig, _session: &mut Session) -> Result<(), Self::Error> {
        let deadly = matches!(signal, Sig::KILL | Sig::TERM | Sig::INT | Sig::HUP | Sig::QUIT);
        if let Some(kill) = self
            .channels
            .get(&id)
            .and_then(|channel| channel.kill.as_ref())
            .filter(|_| deadly)
        {
            // A command that is over has nobody to kill.
            let _ = kill.send(signal);
        }
        Ok(())
    }
}
