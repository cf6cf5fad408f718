"""The web pages of annotators and leads: HTTP beside gRPC in the labeling service's process, the same library calls."""
