//! How two peers convince each other that they know the same token, without sending it.
//!
//! ```text
//! client                                              server
//! magic · version · nonce · hello            ──────▶
//!                                            ◀──────  magic · version · nonce · proof("server")
//! verdict · proof("client")                  ──────▶
//!                                            ◀──────  verdict · hello or reason · proof("reply")
//! ```
//!
//! Each proof is a keyed hash of its label, both nonces and the client's hello; the last one covers
//! the reply too. A side that finds the other's proof wrong says so before it closes, so that both
//! can tell their user.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::TransportError;
use crate::token::{Credentials, Token, random_fill};

pub(crate) const PROTOCOL_VERSION: u16 = 1;
const MAGIC: [u8; 4] = *b"RSKR";
const NONCE_NBYTES: usize = 32;
/// All that a peer can make us read before it has proved itself stays below 64 KiB.
const HELLO_NBYTES_MAX: usize = 63 << 10;

const ACCEPTED: u8 = 0;
const REFUSED: u8 = 1;
const WRONG_TOKEN: u8 = 2;

/// A stream under handshake.
struct Talk<'a, S> {
    stream: &'a mut S,
    peer: &'a str,
    token: &'a Token,
}

/// What both sides have said, in the order in which it is hashed.
struct Transcript {
    client_nonce: [u8; NONCE_NBYTES],
    server_nonce: [u8; NONCE_NBYTES],
    hello: Bytes,
}

impl Transcript {
    fn proof(&self, token: &Token, label: &str, more: &[&[u8]]) -> blake3::Hash {
        let mut parts: Vec<&[u8]> = vec![&self.client_nonce, &self.server_nonce, &self.hello];
        parts.extend(more);
        token.proof(label, &parts)
    }
}

/// The client's side; returns the server's hello.
pub(crate) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    peer: &str,
    credentials: &Credentials,
    hello: Bytes,
) -> Result<Bytes, TransportError> {
    let mut talk = Talk { stream, peer, token: &credentials.token };
    if hello.len() > HELLO_NBYTES_MAX {
        return Err(talk.failed(format!("a hello of {} bytes is too long", hello.len())));
    }
    let mut client_nonce = [0; NONCE_NBYTES];
    random_fill(&mut client_nonce)?;
    let mut opening = opening();
    opening.extend(client_nonce);
    opening.extend((hello.len() as u32).to_le_bytes());
    opening.extend(&hello);
    talk.write(&opening).await?;
    talk.read_opening().await?;
    let server_nonce = talk.read_array().await?;
    let transcript = Transcript { client_nonce, server_nonce, hello };
    let server_proof = blake3::Hash::from_bytes(talk.read_array().await?);
    // Comparing hashes of this type takes the same time wherever they differ.
    if server_proof != transcript.proof(talk.token, "server", &[]) {
        talk.write(&[&[WRONG_TOKEN][..], &[0; 32]].concat()).await?;
        return Err(TransportError::Token { peer: peer.into() });
    }
    let client_proof = transcript.proof(talk.token, "client", &[]);
    talk.write(&[&[ACCEPTED][..], client_proof.as_bytes()].concat()).await?;
    let [verdict] = talk.read_array().await?;
    if verdict == WRONG_TOKEN {
        return Err(TransportError::Token { peer: peer.into() });
    }
    let reply = talk.read_text().await?;
    let reply_proof = blake3::Hash::from_bytes(talk.read_array().await?);
    if reply_proof != transcript.proof(talk.token, "reply", &[&[verdict], &reply]) {
        return Err(talk.failed("its reply is not its own"));
    }
    if verdict != ACCEPTED {
        let reason = String::from_utf8_lossy(&reply).into_owned();
        return Err(TransportError::Refused { peer: peer.into(), reason });
    }
    Ok(reply)
}

/// The server's side; returns the client's hello. `reply` decides on a client that has proved
/// itself.
pub(crate) async fn welcome<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    peer: &str,
    credentials: &Credentials,
    reply: impl FnOnce(&Bytes) -> Result<Bytes, String>,
) -> Result<Bytes, TransportError> {
    let mut talk = Talk { stream, peer, token: &credentials.token };
    if let Err(error) = talk.read_opening().await {
        // A peer of another version learns ours from this; anybody else learns that this is no
        // place for it.
        if matches!(error, TransportError::Version { .. }) {
            talk.write(&opening()).await?;
        }
        return Err(error);
    }
    let client_nonce = talk.read_array().await?;
    let hello = talk.read_text().await?;
    let mut server_nonce = [0; NONCE_NBYTES];
    random_fill(&mut server_nonce)?;
    let transcript = Transcript { client_nonce, server_nonce, hello };
    let server_proof = transcript.proof(talk.token, "server", &[]);
    let answer = [&opening()[..], &server_nonce, server_proof.as_bytes()].concat();
    talk.write(&answer).await?;
    let [verdict] = talk.read_array().await?;
    let client_proof = blake3::Hash::from_bytes(talk.read_array().await?);
    if verdict == WRONG_TOKEN || client_proof != transcript.proof(talk.token, "client", &[]) {
        talk.write(&[WRONG_TOKEN]).await?;
        return Err(TransportError::Token { peer: peer.into() });
    }
    let (verdict, text) = match reply(&transcript.hello) {
        Ok(text) if text.len() <= HELLO_NBYTES_MAX => (ACCEPTED, text),
        Ok(text) => {
            return Err(talk.failed(format!("our hello of {} bytes is too long", text.len())));
        }
        Err(reason) => (REFUSED, Bytes::from(reason)),
    };
    let proof = transcript.proof(talk.token, "reply", &[&[verdict], &text]);
    let length = (text.len() as u32).to_le_bytes();
    talk.write(&[&[verdict][..], &length, &text, proof.as_bytes()].concat()).await?;
    if verdict == REFUSED {
        let reason = format!("refused: {}", String::from_utf8_lossy(&text));
        return Err(talk.failed(reason));
    }
    Ok(transcript.hello)
}

fn opening() -> Vec<u8> {
    [&MAGIC[..], &PROTOCOL_VERSION.to_le_bytes()].concat()
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<'_, S> {
    async fn read_opening(&mut self) -> Result<(), TransportError> {
        let found: [u8; 4] = self.read_array().await?;
        if found != MAGIC {
            let found = format!("`{}`", found.escape_ascii());
            return Err(TransportError::NotRasker { peer: self.peer.into(), found });
        }
        let theirs = u16::from_le_bytes(self.read_array().await?);
        if theirs != PROTOCOL_VERSION {
            let peer = self.peer.into();
            return Err(TransportError::Version { peer, ours: PROTOCOL_VERSION, theirs });
        }
        Ok(())
    }

    async fn read_array<const N: usize>(&mut self) -> Result<[u8; N], TransportError> {
        let mut bytes = [0; N];
        match self.stream.read_exact(&mut bytes).await {
            Ok(_) => Ok(bytes),
            Err(error) => Err(self.failed(format!("it closed the connection ({error})"))),
        }
    }

    async fn read_text(&mut self) -> Result<Bytes, TransportError> {
        let length = u32::from_le_bytes(self.read_array().await?) as usize;
        if length > HELLO_NBYTES_MAX {
            let limit = HELLO_NBYTES_MAX as u64;
            let peer = self.peer.into();
            return Err(TransportError::Limit { peer, what: "a hello", n: length as u64, limit });
        }
        let mut text = vec![0; length];
        match self.stream.read_exact(&mut text).await {
            Ok(_) => Ok(text.into()),
            Err(error) => Err(self.failed(format!("it closed the connection ({error})"))),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        let written = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        let result = written.await;
        result.map_err(|error| self.failed(format!("it closed the connection ({error})")))
    }

    fn failed(&self, reason: impl Into<String>) -> TransportError {
        TransportError::Handshake { peer: self.peer.into(), reason: reason.into() }
    }
}
