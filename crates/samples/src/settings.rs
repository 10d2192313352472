//! What an application is told: by its environment, its port and its image's command line.

use std::env;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::AppError;
use crate::client::Client;

/// The settings of one application.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The version it plays.
    pub version: String,
    /// The address it binds: `LATEEN_BIND_ADDRESS`, else all.
    pub bind: IpAddr,
    /// The port it is told to bind.
    pub port: Option<u16>,
    /// The pod's name: `HOSTNAME`.
    pub pod: String,
    /// The rest of the command line.
    pub args: Vec<String>,
    /// How it calls others.
    pub client: Client,
}

impl Settings {
    /// Reads the environment, and the bind address in gunicorn's (`-b`) or go-httpbin's (`-host`, `-port`) flags.
    ///
    /// # Errors
    /// When an address or a port is none.
    pub fn from_env(version: &str, port: Option<u16>, args: &[String]) -> Result<Self, AppError> {
        let bind = match env::var("LATEEN_BIND_ADDRESS") {
            Ok(text) => text
                .parse()
                .map_err(|_| AppError::Setting(format!("LATEEN_BIND_ADDRESS={text}: not an IP address")))?,
            Err(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        let port = match port {
            Some(port) => Some(port),
            None => port_of(args, env::var("PORT").ok().as_deref())?,
        };
        Ok(Self {
            version: version.to_owned(),
            bind,
            port,
            pod: env::var("HOSTNAME").unwrap_or_else(|_| "unknown".into()),
            args: args.to_vec(),
            client: Client::from_env()?,
        })
    }

    /// Where it listens when nothing else was said.
    pub fn address(&self, default_port: u16) -> SocketAddr {
        SocketAddr::new(self.bind, self.port.unwrap_or(default_port))
    }
}

/// The port that the image's own command line names, or else its environment.
fn port_of(args: &[String], env: Option<&str>) -> Result<Option<u16>, AppError> {
    let flags = ["-b", "--bind", "-port", "--port", "-p"];
    let named = args.windows(2).find(|pair| flags.contains(&pair[0].as_str())).map(|pair| pair[1].as_str());
    let Some(text) = named.or(env) else { return Ok(None) };
    let number = text.rsplit(':').next().unwrap_or(text);
    number.parse().map(Some).map_err(|_| AppError::Setting(format!("{text:?} does not end in a port number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_comes_from_the_images_own_flags() {
        let args = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(port_of(&args("gunicorn -b 0.0.0.0:80 httpbin:app"), None).unwrap(), Some(80));
        assert_eq!(port_of(&args("-b [::]:8000"), Some("1")).unwrap(), Some(8000));
        assert_eq!(port_of(&[], Some("8080")).unwrap(), Some(8080));
        assert_eq!(port_of(&[], None).unwrap(), None);
        assert!(port_of(&args("-port x"), None).is_err());
    }
}
