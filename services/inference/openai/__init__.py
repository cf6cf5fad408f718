"""The OpenAI-compatible door: chat and text completions, models, feedback; over HTTP, beside gRPC."""
