//! The one package with unsafe code: process set-up and namespaces.
