"""Generated from protos/iterpo/v1 by protos/generate.py; do not edit."""
