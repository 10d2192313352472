//! What nginx is told: the servers of its configuration, as far as the built-in one plays them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::ConfigError;
use super::format::Format;
use super::syntax::{Directive, parse};

/// What nginx looks for in a folder when it is told nothing.
const INDEX: &str = "index.html";
/// Where nginx's own image keeps its pages.
pub(super) const PAGES: &str = "/usr/share/nginx/html";
/// The names under which the image's access log is its standard output.
const STDOUT: &[&str] = &["/dev/stdout", "/var/log/nginx/access.log", "logs/access.log"];

/// All servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) servers: Vec<Server>,
}

/// A `server` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) listens: Vec<Listen>,
    /// Names it answers to; `*.` begins a wildcard.
    pub(super) names: Vec<String>,
    pub(super) tls: Tls,
    /// How requests are logged; none with `access_log off`.
    pub(super) log: Option<Format>,
    /// What holds outside of all locations.
    pub(super) base: Place,
    pub(super) locations: Vec<Location>,
}

/// A `listen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listen {
    pub(super) address: SocketAddr,
    pub(super) tls: bool,
    /// The server for names that no other one on this address has.
    pub(super) default: bool,
}

/// Certificates, by their paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tls {
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
    pub(super) client_ca: Option<String>,
    pub(super) verify: Verify,
}

/// `ssl_verify_client`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Verify {
    #[default]
    Off,
    On,
    Optional,
}

/// Where files are, or what is said instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) root: String,
    pub(super) index: Vec<String>,
    pub(super) answer: Option<Answer>,
}

/// `return`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The body, or for redirections the target.
    pub(super) text: String,
}

/// A `location`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Location {
    /// `=`: the whole path, not its beginning.
    pub(super) exact: bool,
    pub(super) path: String,
    pub(super) place: Place,
}

impl Config {
    /// Reads `nginx.conf`.
    pub(super) fn main(text: &str) -> Result<Self, ConfigError> {
        let mut servers = Vec::new();
        for directive in parse(text)? {
            match (directive.name.as_str(), &directive.block) {
                // How connections are handled is our own business.
                ("events", Some(block)) if block.is_empty() => {}
                ("events", Some(block)) => return Err(unknown(&block[0])),
                ("http", Some(block)) => servers = Http::default().servers(block)?,
                _ => return Err(unknown(&directive)),
            }
        }
        Self::of(servers)
    }

    /// Reads a file of `conf.d`, whose place is within `http`.
    pub(super) fn included(text: &str) -> Result<Self, ConfigError> {
        Self::of(Http::default().servers(&parse(text)?)?)
    }

    /// What the image does without any configuration.
    pub(super) fn preset() -> Self {
        let server = Server::new(&Http::default());
        Self { servers: vec![Server { names: vec!["localhost".to_owned()], ..server }] }
    }

    fn of(servers: Vec<Server>) -> Result<Self, ConfigError> {
        if servers.is_empty() {
            return Err(ConfigError { line: 1, what: "there is no server".to_owned() });
        }
        Ok(Self { servers })
    }
}

/// What `http` gives its servers.
#[derive(Clone, Debug)]
struct Http {
    formats: Vec<(String, Format)>,
    log: Option<Format>,
    place: Place,
}

impl Default for Http {
    fn default() -> Self {
        let combined = Format::combined();
        let place = Place { root: PAGES.to_owned(), index: vec![INDEX.to_owned()], answer: None };
        Self { formats: vec![("combined".to_owned(), combined.clone())], log: Some(combined), place }
    }
}

impl Http {
    fn servers(mut self, block: &[Directive]) -> Result<Vec<Server>, ConfigError> {
        // A server takes what stands in `http` wherever it stands, so servers come last.
        let is_server = |directive: &&Directive| directive.name == "server" && directive.block.is_some();
        for directive in block.iter().filter(|one| !is_server(one)) {
            match (directive.name.as_str(), directive.words.as_slice()) {
                ("log_format", [name, parts @ ..]) => {
                    let format = Format::parse(&parts.concat()).map_err(|what| at(directive, what))?;
                    self.formats.push((name.clone(), format));
                }
                ("access_log", words) => self.log = self.access_log(directive, words)?,
                ("error_log", _) => {}
                _ if self.place.take(directive)? => {}
                _ => return Err(unknown(directive)),
            }
        }
        let servers = block.iter().filter(is_server);
        servers.map(|server| Server::read(&self, server.block.as_deref().unwrap_or_default())).collect()
    }

    fn access_log(&self, directive: &Directive, words: &[String]) -> Result<Option<Format>, ConfigError> {
        let name = match words {
            [off] if off == "off" => return Ok(None),
            [path] if STDOUT.contains(&path.as_str()) => "combined",
            [path, name] if STDOUT.contains(&path.as_str()) => name,
            _ => return Err(at(directive, format!("access_log goes to {} or off here", STDOUT[1]))),
        };
        let format = self.formats.iter().rev().find(|(known, _)| known == name);
        let (_, format) = format.ok_or_else(|| at(directive, format!("unknown log format \"{name}\"")))?;
        Ok(Some(format.clone()))
    }
}

impl Server {
    fn new(http: &Http) -> Self {
        let address = (Ipv4Addr::UNSPECIFIED, 80).into();
        Self {
            listens: vec![Listen { address, tls: false, default: false }],
            names: Vec::new(),
            tls: Tls::default(),
            log: http.log.clone(),
            base: http.place.clone(),
            locations: Vec::new(),
        }
    }

    fn read(http: &Http, block: &[Directive]) -> Result<Self, ConfigError> {
        let mut server = Self::new(http);
        let mut listens = Vec::new();
        let is_location = |directive: &&Directive| directive.name == "location" && directive.block.is_some();
        for directive in block.iter().filter(|one| !is_location(one)) {
            let path = |slot: &mut Option<String>| -> Result<(), ConfigError> {
                *slot = Some(one(directive)?.to_owned());
                Ok(())
            };
            match directive.name.as_str() {
                _ if directive.block.is_some() => return Err(unknown(directive)),
                "listen" => listens.push(listen(directive)?),
                "server_name" => server.names.extend(directive.words.iter().map(|name| name.to_lowercase())),
                "ssl_certificate" => path(&mut server.tls.certificate)?,
                "ssl_certificate_key" => path(&mut server.tls.key)?,
                "ssl_client_certificate" => path(&mut server.tls.client_ca)?,
                "ssl_verify_client" => server.tls.verify = verify(directive)?,
                "access_log" => server.log = http.access_log(directive, &directive.words)?,
                "error_log" => {}
                _ if server.base.take(directive)? => {}
                _ => return Err(unknown(directive)),
            }
        }
        if let Some(regex) = server.names.iter().find(|name| name.starts_with('~')) {
            return Err(ConfigError {
                line: 0,
                what: format!("server_name {regex}: no regular expressions here"),
            });
        }
        for directive in block.iter().filter(is_location) {
            server.locations.push(location(&server.base, directive)?);
        }
        if !listens.is_empty() {
            server.listens = listens;
        }
        server.check()?;
        Ok(server)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let name = self.names.first().map_or("a server", String::as_str);
        let refuse = |what: &str| Err(ConfigError { line: 0, what: format!("{name}: {what}") });
        if !self.listens.iter().any(|listen| listen.tls) {
            return Ok(());
        }
        if self.tls.certificate.is_none() {
            return refuse("no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive");
        }
        if self.tls.key.is_none() {
            return refuse("no \"ssl_certificate_key\" is defined for its certificate");
        }
        if self.tls.verify != Verify::Off && self.tls.client_ca.is_none() {
            return refuse("no \"ssl_client_certificate\" for \"ssl_verify_client\"");
        }
        Ok(())
    }

    /// What a path gets: an exact location, else the longest one that begins it, else the server's own.
    pub(super) fn place(&self, path: &str) -> &Place {
        let exact = self.locations.iter().find(|location| location.exact && location.path == path);
        let beginning = || {
            let all = self.locations.iter().filter(|one| !one.exact && path.starts_with(&one.path));
            all.max_by_key(|location| location.path.len())
        };
        exact.or_else(beginning).map_or(&self.base, |location| &location.place)
    }

    /// Whether one of its names is this host.
    pub(super) fn is_named(&self, host: &str) -> bool {
        self.names.iter().any(|name| match name.strip_prefix('*') {
            Some(end) => host.len() > end.len() && host.ends_with(end),
            None => name == host,
        })
    }
}

impl Place {
    /// Takes what may stand in `http`, `server` and `location` alike; false for anything else.
    fn take(&mut self, directive: &Directive) -> Result<bool, ConfigError> {
        if directive.block.is_some() {
            return Ok(false);
        }
        match directive.name.as_str() {
            "root" => one(directive)?.clone_into(&mut self.root),
            "index" => self.index.clone_from(&directive.words),
            // The first one counts, as it ends the request.
            "return" if self.answer.is_some() => {}
            "return" => self.answer = Some(answer(directive)?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn location(base: &Place, directive: &Directive) -> Result<Location, ConfigError> {
    let (exact, path) = match directive.words.as_slice() {
        [path] if !path.starts_with(['~', '@', '=', '^']) => (false, path),
        [sign, path] if sign == "=" => (true, path),
        [sign, path] if sign == "^~" => (false, path),
        words => {
            let what = format!("location {}: write a path, \"= PATH\" or \"^~ PATH\"", words.join(" "));
            return Err(at(directive, what));
        }
    };
    // A server's own return ends the request before any location is looked for.
    let mut place = base.clone();
    for directive in directive.block.iter().flatten() {
        if !place.take(directive)? {
            return Err(unknown(directive));
        }
    }
    Ok(Location { exact, path: path.clone(), place })
}

fn listen(directive: &Directive) -> Result<Listen, ConfigError> {
    let (first, flags) = directive.words.split_first().ok_or_else(|| at(directive, "listen what?"))?;
    let bad = || at(directive, format!("invalid address \"{first}\": write a port or ADDRESS:port"));
    let address = match first.parse::<u16>() {
        Ok(port) => (Ipv4Addr::UNSPECIFIED, port).into(),
        Err(_) => match first.strip_prefix("*:") {
            Some(port) => (Ipv4Addr::UNSPECIFIED, port.parse().map_err(|_| bad())?).into(),
            None => match (first.parse::<SocketAddr>(), first.parse::<IpAddr>()) {
                (Ok(address), _) => address,
                (_, Ok(ip)) => (ip, 80).into(),
                _ => return Err(bad()),
            },
        },
    };
    if address.port() == 0 {
        return Err(bad());
    }
    let mut listen = Listen { address, tls: false, default: false };
    for flag in flags {
        match flag.as_str() {
            "ssl" => listen.tls = true,
            "default_server" => listen.default = true,
            other => return Err(at(directive, format!("parameter \"{other}\" of listen is not supported"))),
        }
    }
    Ok(listen)
}

fn verify(directive: &Directive) -> Result<Verify, ConfigError> {
    match one(directive)? {
        "on" => Ok(Verify::On),
        "off" => Ok(Verify::Off),
        "optional" => Ok(Verify::Optional),
        other => Err(at(directive, format!("\"{other}\": write on, off or optional"))),
    }
}

fn answer(directive: &Directive) -> Result<Answer, ConfigError> {
    let bad = || at(directive, "write return CODE, return CODE TEXT or return URL");
    let (status, text) = match directive.words.as_slice() {
        [url] if url.starts_with("http://") || url.starts_with("https://") => (302, url.clone()),
        [code] => (code.parse().map_err(|_| bad())?, String::new()),
        [code, text] => (code.parse().map_err(|_| bad())?, text.clone()),
        _ => return Err(bad()),
    };
    if !(200..=599).contains(&status) {
        return Err(bad());
    }
    if text.contains('$') {
        return Err(at(directive, "variables in return are not supported"));
    }
    Ok(Answer { status, text })
}

fn one(directive: &Directive) -> Result<&str, ConfigError> {
    match directive.words.as_slice() {
        [word] => Ok(word),
        _ => Err(at(directive, format!("{} takes one word", directive.name))),
    }
}

fn at(directive: &Directive, what: impl Into<String>) -> ConfigError {
    ConfigError { line: directive.line, what: what.into() }
}

fn unknown(directive: &Directive) -> ConfigError {
    let what = format!(
        "directive \"{}\" is not one that the built-in nginx knows here; they are events, http, log_format, \
         access_log, error_log, server, listen, server_name, ssl_certificate, ssl_certificate_key, \
         ssl_client_certificate, ssl_verify_client, root, index, return and location",
        directive.name
    );
    at(directive, what)
}

#[cfg(test)]
#[path = "config_tests.rs"]
pub(super) mod tests;
