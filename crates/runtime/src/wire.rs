//! Messages on a connection: encoded here, framed and sent by `transport`.

use rasker_graph::Blob;
use rasker_protocol::{CodecError, decode, encode};
use rasker_store::Segment;
use rasker_transport::{Attachment, Frame, Receiver, Sender, TransportError};
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("an object of this process cannot be sent to another one")]
    Local,
}

pub(crate) fn to_frame<M: Serialize>(message: &M) -> Result<Frame, WireError> {
    let (head, blobs) = encode(message)?;
    let mut frame = Frame::new(head);
    for blob in blobs {
        frame.attachments.push(match &blob {
            Blob::Bytes(bytes) => Attachment::Bytes(bytes.clone()),
            Blob::Local(_) => {
                let segment = blob.local::<Segment>().ok_or(WireError::Local)?;
                Attachment::Segment((*segment).clone())
            }
        });
    }
    Ok(frame)
}

pub(crate) fn from_frame<M: DeserializeOwned>(frame: Frame) -> Result<M, WireError> {
    let blobs = frame.attachments.into_iter().map(|attachment| match attachment {
        Attachment::Bytes(bytes) => Blob::Bytes(bytes),
        Attachment::Segment(segment) => Blob::Local(Arc::new(segment)),
    });
    Ok(decode(&frame.head, blobs.collect())?)
}

/// Where messages of a kind go. False when nobody is there any more.
pub(crate) type Outlet<M> = Box<dyn Fn(M) -> bool + Send + Sync>;

/// An outlet into a connection.
pub(crate) fn outlet<M: Serialize + 'static>(sender: Sender) -> Outlet<M> {
    Box::new(move |message| to_frame(&message).is_ok_and(|frame| sender.send(frame).is_ok()))
}

/// Reads messages until the connection ends; why it did.
pub(crate) async fn pump<M: DeserializeOwned>(
    receiver: Receiver,
    mut take: impl FnMut(M) -> bool,
) -> String {
    pump_frames(receiver, |message, _| take(message)).await
}

/// As `pump`, with the bytes that each message took.
pub(crate) async fn pump_frames<M: DeserializeOwned>(
    mut receiver: Receiver,
    mut take: impl FnMut(M, usize) -> bool,
) -> String {
    loop {
        let received = receiver.recv().await;
        let nbytes = match &received {
            Ok(Some(frame)) => {
                frame.head.len() + frame.attachments.iter().map(|a| a.len()).sum::<usize>()
            }
            _ => 0,
        };
        match received {
            Ok(Some(frame)) => match from_frame(frame) {
                Ok(message) => {
                    if !take(message, nbytes) {
                        return "closed".into();
                    }
                }
                Err(error) => return error.to_string(),
            },
            Ok(None) => return "the connection was closed".into(),
            Err(error) => return error.to_string(),
        }
    }
}
