//! The built-in sample applications.
