//! Pod and mesh configuration to the injected pod.
