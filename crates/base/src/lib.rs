//! The words of the mesh: hosts, namespaces, labels, identities, localities, durations, the clock.
