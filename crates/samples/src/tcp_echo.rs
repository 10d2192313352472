//! tcp-echo: answers every line with a prefix of its own, on several ports.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::{AppError, Settings, server};

/// A longer line is cut into pieces of this size.
const MAX_LINE: u64 = 64 * 1024;

/// Serves the ports of the first argument (`9000,9001`, by default 9000) with the prefix of the second.
pub(crate) async fn serve(settings: &Settings) -> Result<(), AppError> {
    let ports = settings.args.first().map_or("9000", String::as_str);
    let prefix = settings.args.get(1).cloned().unwrap_or_else(|| "hello".to_owned());
    for port in ports.split(',') {
        let port = port
            .trim()
            .parse()
            .map_err(|_| AppError::Setting(format!("{port:?} is no port; write a list such as 9000,9001")))?;
        let address = SocketAddr::new(settings.bind, port);
        let listener =
            TcpListener::bind(address).await.map_err(|source| AppError::Bind { address, source })?;
        println!("listening on {address}, prefix: {prefix}");
        tokio::spawn(accept(listener, prefix.clone()));
    }
    server::until_terminated().await
}

/// Echoes on every connection. With an empty prefix a line comes back as it was.
pub(crate) async fn accept(listener: TcpListener, prefix: String) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let prefix = prefix.clone();
                tokio::spawn(async move {
                    println!("connection from {peer}");
                    if let Err(error) = echo(stream, &prefix).await {
                        println!("{peer}: {error}");
                    }
                });
            }
            Err(error) => println!("accept: {error}"),
        }
    }
}

async fn echo(mut stream: TcpStream, prefix: &str) -> std::io::Result<()> {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        if (&mut lines).take(MAX_LINE).read_until(b'\n', &mut line).await? == 0 {
            return write.shutdown().await;
        }
        println!("request: {}", String::from_utf8_lossy(&line).trim_end());
        if !prefix.is_empty() {
            write.write_all(format!("{prefix} ").as_bytes()).await?;
        }
        write.write_all(&line).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_line_comes_back_with_the_prefix() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(accept(listener, "one".into()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"a\nb").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "one a\none b");
    }
}
