//! Services, workloads and endpoints of N clusters; networks and localities. Events in, changes out.
