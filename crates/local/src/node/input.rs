//! Standard input of running containers (`stdin: true`), for `kubectl attach -i`.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::process::ChildStdin;
use tokio::sync::mpsc;

/// Bytes on the way to a container that does not read.
const BUFFER: usize = 16 << 10;

/// A pod's uid and a container's name.
pub(super) type Place = (String, String);

/// The place of a container of the pod.
pub(super) fn place(pod: &Pod, container: &str) -> Place {
    (pod.metadata.uid.clone().unwrap_or_default(), container.to_owned())
}

/// The open inputs of a node.
#[derive(Default)]
pub(super) struct Inputs(Arc<Mutex<HashMap<Place, Input>>>);

#[derive(Clone)]
struct Input {
    pieces: mpsc::Sender<Piece>,
    /// `stdinOnce`: the first client that goes ends the input.
    once: bool,
}

enum Piece {
    Bytes(Bytes),
    End,
}

/// Keeps an input open; it is dropped with the container's run.
pub(super) struct Open {
    inputs: Arc<Mutex<HashMap<Place, Input>>>,
    place: Place,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.inputs.lock().remove(&self.place);
    }
}

impl Inputs {
    /// Of a container that has just been started.
    pub(super) fn open(&self, place: Place, stdin: ChildStdin, once: bool) -> Open {
        let (pieces, received) = mpsc::channel(1);
        tokio::spawn(feed(stdin, received));
        self.0.lock().insert(place.clone(), Input { pieces, once });
        Open { inputs: self.0.clone(), place }
    }

    /// A client's end of a container's input; `None` when the container reads nothing, or nothing any more.
    pub(super) fn attach(&self, place: &Place) -> Option<DuplexStream> {
        let input = self.0.lock().get(place)?.clone();
        if input.pieces.is_closed() {
            return None;
        }
        let (client, node) = tokio::io::duplex(BUFFER);
        tokio::spawn(relay(node, input));
        Some(client)
    }
}

/// Writes what clients send until one of them ends it, or the container.
async fn feed(mut stdin: ChildStdin, mut pieces: mpsc::Receiver<Piece>) {
    while let Some(Piece::Bytes(bytes)) = pieces.recv().await {
        if stdin.write_all(&bytes).await.is_err() || stdin.flush().await.is_err() {
            return;
        }
    }
}

async fn relay(mut client: DuplexStream, input: Input) {
    let mut piece = vec![0; BUFFER];
    // An error is a client that has gone.
    while let Ok(count) = client.read(&mut piece).await
        && count > 0
    {
        let bytes = Bytes::copy_from_slice(&piece[..count]);
        if input.pieces.send(Piece::Bytes(bytes)).await.is_err() {
            return;
        }
    }
    if input.once {
        // The container has ended when nobody takes it.
        let _ = input.pieces.send(Piece::End).await;
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;
    use std::time::Duration;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(60);

    fn cat() -> tokio::process::Child {
        let mut command = tokio::process::Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        command.spawn().unwrap()
    }

    #[tokio::test]
    async fn an_input_outlives_its_clients_unless_it_is_for_one() {
        for once in [false, true] {
            let (inputs, mut child) = (Inputs::default(), cat());
            let place = ("uid".to_owned(), "app".to_owned());
            let open = inputs.open(place.clone(), child.stdin.take().unwrap(), once);
            let mut output = child.stdout.take().unwrap();
            let mut client = inputs.attach(&place).unwrap();
            client.write_all(b"first").await.unwrap();
            let mut read = [0; 5];
            tokio::time::timeout(DEADLINE, output.read_exact(&mut read)).await.unwrap().unwrap();
            assert_eq!(&read, b"first");
            drop(client);
            if once {
                let status = tokio::time::timeout(DEADLINE, child.wait()).await.unwrap().unwrap();
                assert!(status.success());
            } else {
                let mut client = inputs.attach(&place).unwrap();
                client.write_all(b"again").await.unwrap();
                tokio::time::timeout(DEADLINE, output.read_exact(&mut read)).await.unwrap().unwrap();
                assert_eq!(&read, b"again");
            }
            drop(open);
            assert!(inputs.attach(&place).is_none());
        }
    }
}
