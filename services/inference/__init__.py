"""Serves policies with vLLM: the composition root, the engine, how policies reach it, and who serves."""
