//! What an application is told: by its environment, its port and its image's command line.

use std::env;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::AppError;
use crate::client::Client;

/// The settings of one application.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The version it plays.
    pub version: String,
    /// The address that stands for all of the pod's: `LATEEN_BIND_ADDRESS`, else all.
    pub bind: IpAddr,
    /// The pod's own address, where it is known: `LATEEN_POD_IP`.
    pub pod_ip: Option<IpAddr>,
    /// The address that it is told to bind, if only one.
    pub address: Option<IpAddr>,
    /// The port it is told to bind.
    pub port: Option<u16>,
    /// The pod's name: `HOSTNAME`.
    pub pod: String,
    /// The folder that is `/` to the pod: `LATEEN_POD_ROOT`, else `/`.
    pub root: PathBuf,
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
        let ip = |name: &str| match env::var(name) {
            Ok(text) => {
                let bad = || AppError::Setting(format!("{name}={text}: not an IP address"));
                text.parse().map(Some).map_err(|_| bad())
            }
            Err(_) => Ok(None),
        };
        let told = told(args, env::var("PORT").ok().as_deref())?;
        Ok(Self {
            version: version.to_owned(),
            bind: ip("LATEEN_BIND_ADDRESS")?.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            pod_ip: ip("LATEEN_POD_IP")?,
            address: told.address,
            port: port.or(told.port),
            pod: env::var("HOSTNAME").unwrap_or_else(|_| "unknown".into()),
            root: env::var_os("LATEEN_POD_ROOT").map_or_else(|| "/".into(), PathBuf::from),
            args: args.to_vec(),
            client: Client::from_env()?,
        })
    }

    /// Where it listens when nothing else was said.
    ///
    /// # Errors
    /// When it was told an address that the pod does not have.
    pub fn address(&self, default_port: u16) -> Result<SocketAddr, AppError> {
        let ip = self.own_address(self.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))?;
        Ok(SocketAddr::new(ip, self.port.unwrap_or(default_port)))
    }

    /// What is bound when an application binds this address: in a pod on loopback, its one address stands for all
    /// addresses, for its `localhost` and for the pod's.
    ///
    /// # Errors
    /// When the pod does not have it.
    pub fn own_address(&self, asked: IpAddr) -> Result<IpAddr, AppError> {
        let anywhere = self.bind.is_unspecified();
        match asked {
            asked if asked.is_unspecified() || Some(asked) == self.pod_ip => Ok(self.bind),
            asked if anywhere || asked == self.bind => Ok(asked),
            asked if asked == IpAddr::V4(Ipv4Addr::LOCALHOST) => Ok(self.bind),
            IpAddr::V6(asked) if asked.is_loopback() => Ok(self.bind),
            asked => Err(AppError::Setting(format!("cannot bind {asked}: it is not an address of this pod"))),
        }
    }
}

/// What a command line says about where to listen.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    address: Option<IpAddr>,
    port: Option<u16>,
}

/// The address and port that the image's own command line names, or else its environment.
fn told(args: &[String], port: Option<&str>) -> Result<Told, AppError> {
    let mut told = Told { address: None, port: port.map(number).transpose()? };
    for (flag, value) in flags(args) {
        match flag {
            "-b" | "--bind" => told = bind(value)?,
            "-port" | "--port" | "-p" => told.port = Some(number(value)?),
            "-host" | "--host" => told.address = ip(value)?,
            _ => {}
        }
    }
    Ok(told)
}

/// The flags with their values, written as `FLAG VALUE` or `FLAG=VALUE`.
fn flags(args: &[String]) -> impl Iterator<Item = (&str, &str)> {
    args.iter().enumerate().filter(|(_, arg)| arg.starts_with('-')).filter_map(|(at, arg)| {
        arg.split_once('=').or_else(|| Some((arg.as_str(), args.get(at + 1)?.as_str())))
    })
}

/// gunicorn's `HOST`, `HOST:PORT` or `:PORT`.
fn bind(text: &str) -> Result<Told, AppError> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Told { address: Some(address.ip()), port: Some(address.port()) });
    }
    match text.rsplit_once(':') {
        Some((host, port)) => Ok(Told { address: ip(host)?, port: Some(number(port)?) }),
        // gunicorn's own default.
        None => Ok(Told { address: ip(text)?, port: Some(8000) }),
    }
}

fn ip(text: &str) -> Result<Option<IpAddr>, AppError> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    match bare {
        "" => Ok(None),
        "localhost" => Ok(Some(IpAddr::V4(Ipv4Addr::LOCALHOST))),
        text => {
            text.parse().map(Some).map_err(|_| AppError::Setting(format!("{text:?} is no address to bind")))
        }
    }
}

fn number(text: &str) -> Result<u16, AppError> {
    text.parse().map_err(|_| AppError::Setting(format!("{text:?} is no port number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, env: Option<&str>) -> Result<(Option<String>, Option<u16>), String> {
        let args: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let told = told(&args, env).map_err(|error| error.to_string())?;
        Ok((told.address.map(|ip| ip.to_string()), told.port))
    }

    #[test]
    fn address_and_port_come_from_the_images_own_flags() {
        let some = |ip: &str, port| Ok((Some(ip.to_owned()), Some(port)));
        assert_eq!(of("gunicorn -b 0.0.0.0:80 httpbin:app -k gevent", None), some("0.0.0.0", 80));
        assert_eq!(of("-b [::]:8000", Some("1")), some("::", 8000));
        assert_eq!(of("gunicorn --bind=localhost:81", None), some("127.0.0.1", 81));
        assert_eq!(of("-b :82", None), Ok((None, Some(82))));
        assert_eq!(of("-host 0.0.0.0 -port 83", Some("1")), some("0.0.0.0", 83));
        assert_eq!(of("", Some("8080")), Ok((None, Some(8080))));
        assert_eq!(of("", None), Ok((None, None)));
        assert!(of("-port x", None).is_err() && of("-b nowhere:80", None).is_err());
    }

    #[test]
    fn the_pods_one_address_stands_for_all_it_has() {
        let settings = |bind: &str| Settings {
            version: "v1".into(),
            bind: bind.parse().unwrap(),
            pod_ip: Some("127.10.0.9".parse().unwrap()),
            address: None,
            port: None,
            pod: "p".into(),
            root: "/".into(),
            args: vec![],
            client: Client::default(),
        };
        let inside = settings("127.110.0.9");
        for asked in ["0.0.0.0", "::", "127.0.0.1", "::1", "127.10.0.9", "127.110.0.9"] {
            assert_eq!(inside.own_address(asked.parse().unwrap()).unwrap(), inside.bind, "{asked}");
        }
        let refused = inside.own_address("10.0.0.1".parse().unwrap()).unwrap_err().to_string();
        assert!(refused.contains("10.0.0.1"), "{refused}");
        assert_eq!(inside.address(80).unwrap().to_string(), "127.110.0.9:80");
        let outside = settings("0.0.0.0");
        assert_eq!(outside.own_address("127.0.0.1".parse().unwrap()).unwrap().to_string(), "127.0.0.1");
    }
}
