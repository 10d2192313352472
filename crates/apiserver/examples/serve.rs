//! `serve DATA_DIR [ADDRESS]`: the API server alone, for a look with kubectl and for the tests that kill it.

use std::error::Error;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("want DATA_DIR [ADDRESS]")?;
    let bind = args.next().unwrap_or_else(|| "127.0.0.1:0".into()).parse()?;
    let server = lateen_apiserver::Config::new(dir, bind).build().await?;
    println!("https://{}", server.address());
    tokio::signal::ctrl_c().await?;
    server.shutdown().await;
    Ok(())
}
