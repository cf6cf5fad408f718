"""The labeling service: owns the feedback store, runs the labelers, hands tasks to people."""
