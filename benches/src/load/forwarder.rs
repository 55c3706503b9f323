//! The reference: bytes of one connection go to another, by tokio and nothing else.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Bytes read by one system call, for each direction of a pair.
const COPY_SIZE: usize = 64 << 10;
/// First words of a connection: its pair, or [`ECHO`].
pub(super) const ECHO: u32 = u32::MAX;

type Waiting = Arc<Mutex<HashMap<u32, TcpStream>>>;

/// Serves for ever.
pub(super) async fn serve(listener: TcpListener) {
    let waiting = Waiting::default();
    while let Ok((stream, _)) = listener.accept().await {
        let waiting = Arc::clone(&waiting);
        tokio::spawn(async move {
            // A connection that ends is no error.
            let _ended = connection(stream, waiting).await;
        });
    }
}

async fn connection(mut stream: TcpStream, waiting: Waiting) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let pair = stream.read_u32().await?;
    if pair == ECHO {
        return echo(stream).await;
    }
    let partner = {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.remove(&pair) {
            Some(partner) => Some(partner),
            None => {
                waiting.insert(pair, stream);
                return Ok(());
            }
        }
    };
    if let Some(mut partner) = partner {
        let (one, other) = (&mut stream, &mut partner);
        tokio::io::copy_bidirectional_with_sizes(one, other, COPY_SIZE, COPY_SIZE).await?;
    }
    Ok(())
}

/// Sends back what comes; holds no buffer while nothing does.
async fn echo(mut stream: TcpStream) -> io::Result<()> {
    loop {
        stream.readable().await?;
        let mut buffer = Vec::with_capacity(4_096);
        match stream.try_read_buf(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => stream.write_all(&buffer).await?,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}
