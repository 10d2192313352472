//! The statuses of gRPC by the names that faults are written with (grpc/grpc/doc/statuscodes.md).

/// By number.
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The number of a status, such as 14 of `UNAVAILABLE`; none of an unknown name.
pub fn grpc_status(name: &str) -> Option<u32> {
    (0..).zip(NAMES).find(|(_, known)| *known == name).map(|(number, _)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grpcs() {
        let numbers = ["OK", "INTERNAL", "UNAVAILABLE", "UNAUTHENTICATED"].map(grpc_status);
        assert_eq!(numbers, [Some(0), Some(13), Some(14), Some(16)]);
        assert_eq!(grpc_status("unavailable"), None);
    }
}
