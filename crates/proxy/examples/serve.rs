//! The proxy alone, from a file of resources: what profilers look at, since it builds without the control plane.
//!
//! `serve FILE.pb [WORKERS]`

use std::time::Duration;

/// The allocator of the `lateen` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let file = args.next().ok_or("usage: serve FILE.pb [WORKERS]")?;
    let concurrency = args.next().map_or(Ok(1), |text| text.parse())?;
    // As in service, where somebody listens to what is logged.
    lateen_runtime::logs::init(&lateen_runtime::logs::Config::default())?;
    let config = lateen_proxy::Config {
        xds_file: Some(file.into()),
        concurrency,
        drain_time: Duration::from_millis(100),
        ..lateen_proxy::Config::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let proxy = config.build()?;
        lateen_runtime::signals::terminated().await?;
        proxy.drain().await;
        Ok(())
    })
}
