//! Types of the debug API and of the proxies' admin JSON.
