//! Profiles and operator values to Kubernetes objects.
